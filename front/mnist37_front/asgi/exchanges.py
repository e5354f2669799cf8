"""An exchange of HTTP as applications expect one, which pyvoy's differs from in three points."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from mnist37_front.asgi.frames import Message, Receive, Send

T = TypeVar("T")

REST_SECONDS = 10.0  # for the rest of a body that is refused
REST_BYTES_MAX = 128 << 20
TIMED_OUT = 408  # the status for a body that does not come


class Exchange:
    """One request and its reply.

    A wait in `receive` and `send` can be cancelled: pyvoy logs an error if its own is. And a body
    that is refused before all of it has come is read to its end first, for a time: otherwise Envoy
    resets the connection, and a client that sends all of its body first never sees the reply.
    Neither pyvoy nor Envoy leaves out the body of a reply to HEAD.

    Args:
        receive: of pyvoy.
        send: of pyvoy.
        method: of the request.
    """

    def __init__(self, receive: Receive, send: Send, method: str) -> None:
        self._receive = receive
        self._send = send
        self._is_head = method == "HEAD"
        self._pending: asyncio.Future[Message] | None = None
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next part of the request."""
        if self._pending is None:
            self._pending = begin(self._receive())
        event = await asyncio.shield(self._pending)
        self._pending = None
        self._is_complete = not event.get("more_body", False)
        return event

    async def send(self, event: Message) -> None:
        """Send a part of the reply."""
        if (
            event["type"] == "http.response.start"
            and not self._is_complete
            and event["status"] >= 400
            and event["status"] != TIMED_OUT
        ):
            await self._discard_rest()
        if self._is_head and event["type"] == "http.response.body":
            event = {**event, "body": b""}
        await asyncio.shield(begin(self._send(event)))

    async def _discard_rest(self) -> None:
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                while not self._is_complete and size < REST_BYTES_MAX:
                    event = await self.receive()
                    size += len(event.get("body", b""))


def begin(work: Awaitable[T]) -> asyncio.Future[T]:
    """Begin work that goes on when nobody waits for it any more; then nobody needs its error."""
    future = asyncio.ensure_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
