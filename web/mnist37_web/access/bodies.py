"""Bodies of requests, read within limits of size, time and memory."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from mnist37_web.errors import HttpError

MIB = 2**20
JSON_MAX = 8 * MIB  # a parsed body takes up to 12 times this
BINARY_MAX = 64 * MIB  # as the server's own messages
SECONDS_MAX = 30.0  # to send a body in
HELD_MAX = 192 * MIB  # bytes, by all bodies that are being read


class Bodies:
    """The bodies that are being read."""

    def __init__(self) -> None:
        self._held = 0  # bytes, by all of them

    async def read(self, request: Request, limit: int) -> bytes:
        """Return the body of a request.

        Args:
            request: whose body was not read.
            limit: the most bytes that it may have.

        Raises:
            HttpError: the body is too large or comes too slowly, or all bodies together are.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise too_large(limit)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(SECONDS_MAX):
                async for chunk in request.stream():
                    size += len(chunk)
                    self._held += len(chunk)
                    chunks.append(chunk)
                    if size > limit:
                        raise too_large(limit)
                    if self._held > HELD_MAX:
                        text = "too many large bodies at a time; try again"
                        raise HttpError(503, text, "TOO_MANY_BODIES", 1)
        except TimeoutError:
            text = f"the body was not complete after {SECONDS_MAX:.0f} s; send it faster"
            raise HttpError(408, text, "BODY_TOO_SLOW") from None
        except ClientDisconnect:
            raise HttpError(400, "the body is not complete", "INVALID_REQUEST") from None
        finally:
            self._held -= size
        return b"".join(chunks)


def too_large(limit: int) -> HttpError:
    """Return the error for a body that is too large."""
    return HttpError(
        413, f"the body is too large; must be at most {limit:,} bytes", "MESSAGE_TOO_LARGE"
    )
