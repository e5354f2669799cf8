"""The protocol of a connection, with limits for peers that are slow or send too much."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mnist37_web.errors import HttpError
from mnist37_web.replies.json_replies import error_reply

HEADERS_SECONDS = 10.0  # for the headers of a request
HEADERS_BYTES = 65_536
CONNECTIONS_MAX = 800  # below the 1,024 files that a process may open by default


class LimitedProtocol(HttpToolsProtocol):
    """A connection of HTTP/1.1.

    Uvicorn waits for the headers of a request without a limit of time or size. And a request may be
    answered before all of its body has come. The rest is then read and discarded, for a time: to
    close at once would reset the connection, and many clients would not see the answer.
    """

    _has_more_body = False  # of the newest request
    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; refuse the connection if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(503, "too many connections; try again", "TOO_MANY_CONNECTIONS")
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what a peer sends, if its headers are not too large."""
        if self._deadline is None and self._is_between_requests():
            self._await_headers()
        if self._deadline is not None and not self._has_more_body:
            self._header_bytes += len(data)
            if self._header_bytes > HEADERS_BYTES and not self._ends_headers(data):
                self._refuse(
                    431,
                    f"the headers are too large; must be at most {HEADERS_BYTES:,} bytes",
                    "HEADERS_TOO_LARGE",
                )
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._stop_waiting()
        self._has_more_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body of the request."""
        self._has_more_body = False
        if self._deadline is not None:  # the request was answered before
            self._stop_waiting()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Reply to what is no request of HTTP."""
        self._refuse(400, msg.lower().removesuffix("."), "INVALID_REQUEST")

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _ends_headers(self, data: bytes) -> bool:
        return b"\r\n\r\n" in data[:HEADERS_BYTES]

    def _await_headers(self) -> None:
        self._header_bytes = 0
        self._deadline = self.loop.call_later(HEADERS_SECONDS, self._time_out)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        if self._has_more_body:  # of a request that was answered
            self.transport.abort()
            return
        self._refuse(
            408, f"no complete request came in {HEADERS_SECONDS:.0f} s", "REQUEST_TOO_SLOW"
        )

    def _refuse(self, status: int, text: str, reason: str) -> None:
        """Send an error and close the connection."""
        self._stop_waiting()
        reply = error_reply(HttpError(status, text, reason))
        headers: list[Any] = [(b"connection", b"close"), *reply.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(
            b"HTTP/1.1 %d Refused\r\n%b\r\n%b" % (status, b"".join(lines), bytes(reply.body))
        )
        self.transport.close()
