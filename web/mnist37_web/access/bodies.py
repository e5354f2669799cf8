"""Bodies of requests, read within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

from starlette.requests import Request

from mnist37_web.errors import HttpError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MIB = 2**20
JSON_MAX = 8 * MIB  # a parsed body takes up to 12 times this
BINARY_MAX = 64 * MIB  # as the server's own messages
SECONDS_MAX = 30.0  # to send a body in
IDLE_SECONDS = 300.0  # between two parts of a body that is a stream
HELD_MAX = 192 * MIB  # bytes, by all bodies that are being read or answered
# Small bodies are read beyond that: a client that sends large ones must not shut the others out.
# There is room for one small body of each connection.
SMALL_BYTES = 65_536
SMALL_HELD_MAX = 64 * MIB


class ClientLeft(HttpError):
    """A client has left before its request was complete; it cannot read the error."""

    def __init__(self) -> None:
        super().__init__(400, "the client has left before its request was complete", "CLIENT_LEFT")


class Bodies:
    """The bodies that web holds.

    Attributes:
        held: the bytes of all of them.
    """

    def __init__(self) -> None:
        self.held = 0

    async def read(self, request: Request, limit: int) -> bytes:
        """Return the body of a request, which takes little memory.

        Args:
            request: whose body was not read.
            limit: the most bytes that it may have.

        Raises:
            HttpError: the body is too large or comes too slowly, or all bodies together are.
        """
        with self.hold() as held:
            length = request.headers.get("content-length")
            return await held.read(request.receive, length, limit)

    def hold(self) -> HeldBody:
        """Return a context in which a request's body counts as held."""
        return HeldBody(self)


class HeldBody:
    """The body of one request, which counts as held until its context ends."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release(self._size)

    async def read(self, receive: Receive, length: str | None, limit: int) -> bytes:
        """Return the body.

        Args:
            receive: of the request, whose body was not read.
            length: its Content-Length, if it has one.
            limit: the most bytes that it may have.

        Raises:
            HttpError: the body is too large or comes too slowly, or all bodies together are.
        """
        if length is not None and length.isdecimal() and int(length) > limit:
            raise too_large(limit)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(SECONDS_MAX):
                is_complete = False
                while not is_complete:
                    chunk, is_complete = await self._receive(receive)
                    chunks.append(chunk)
                    if self._size > limit:
                        raise too_large(limit)
        except TimeoutError:
            text = f"the body was not complete after {SECONDS_MAX:.0f} s; send it faster"
            raise HttpError(408, text, "BODY_TOO_SLOW") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_lines(self, receive: Receive, limit: int) -> AsyncIterator[bytes]:
        """Yield the lines of a body that is a stream, as they come; empty ones are left out.

        Args:
            receive: of the request, whose body was not read.
            limit: the most bytes of a line.

        Raises:
            HttpError: a line is too large or does not come, or all bodies together are too large.
        """
        rest = bytearray()
        is_complete = False
        while not is_complete:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    chunk, is_complete = await self._receive(receive)
            except TimeoutError:
                text = f"nothing came for {IDLE_SECONDS:.0f} s; end the body, or send a line"
                raise HttpError(408, text, "BODY_TOO_SLOW") from None
            start = len(rest)
            rest += chunk
            while (end := rest.find(b"\n", start)) >= 0:
                line = bytes(rest[:end])
                del rest[: end + 1]
                start = 0
                if len(line) > limit:
                    raise too_large(limit)
                if line.strip():
                    yield line
                self.release(end + 1)
            if len(rest) > limit:
                raise too_large(limit)
        if rest.strip():
            yield bytes(rest)

    def release(self, size: int) -> None:
        """Count so many bytes as held no longer."""
        self._size -= size
        self._bodies.held -= size

    async def _receive(self, receive: Receive) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether it is the last one."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        self._size += len(chunk)
        self._bodies.held += len(chunk)
        limit = HELD_MAX if self._size > SMALL_BYTES else HELD_MAX + SMALL_HELD_MAX
        if self._bodies.held > limit:
            text = "too many large bodies at a time; try again"
            raise HttpError(503, text, "TOO_MANY_BODIES", 1)
        return chunk, not message.get("more_body", False)


def too_large(limit: int) -> HttpError:
    """Return the error for a body, or a line of one, that is too large."""
    return HttpError(
        413, f"the body is too large; must be at most {limit:,} bytes", "MESSAGE_TOO_LARGE"
    )
