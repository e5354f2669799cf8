"""The protocol of a connection, with limits for peers that are slow or send too much."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mnist37_web.access.boundary import SECURITY_HEADERS
from mnist37_web.errors import HttpError
from mnist37_web.replies.json_replies import error_reply

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEADERS_SECONDS = 10.0  # for the headers of a request
HEADERS_BYTES = 65_536
READ_SECONDS = 60.0  # for a reply, or what there is of a stream, to be read
PIPELINED_MAX = 16  # requests that came before the reply to an earlier one
PIPELINED_BYTES_MAX = 65_536  # of the body of one; from here on uvicorn would read no more
CONNECTIONS_MAX = 800  # below the 1,024 files that a process may open by default


class LimitedProtocol(HttpToolsProtocol):
    """A connection of HTTP/1.1.

    Uvicorn waits for the headers of a request without a limit of time or size. And a request may be
    answered before all of its body has come. The rest is then read and discarded, for a time: to
    close at once would reset the connection, and many clients would not see the answer.

    Nor does it limit the time in which a reply is read, the trailers of a body, and the requests
    that come before an earlier one is answered; of those, only the newest learns that the client
    has left.
    """

    _has_more_body = False  # of the newest request
    _deadline: asyncio.TimerHandle | None = None  # of the headers
    _read_deadline: asyncio.TimerHandle | None = None
    _waiting_bytes = 0  # since the last headers, or the last part of a body
    _answering: RequestResponseCycle | None = None  # the request whose reply comes next

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
        self._stop_waiting_for_reader()
        self.pipeline.clear()
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Read what a peer sends, if its headers are not too large."""
        if self._deadline is None and self._is_between_requests():
            self._await_headers()
        self._waiting_bytes += len(data)
        if self._has_more_body or self._ends_headers(data):
            super().data_received(data)
        if self._waiting_bytes > HEADERS_BYTES and not self.transport.is_closing():
            self._refuse(
                431,
                f"the headers are too large; must be at most {HEADERS_BYTES:,} bytes",
                "HEADERS_TOO_LARGE",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; leave out those behind a body, which came after the headers' check."""
        if not self._has_more_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        if self.transport.is_closing():
            return
        self._stop_waiting()
        self._waiting_bytes = 0
        self._has_more_body = True
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows may be of another protocol
        self.flow.resume_reading()  # also behind further requests: the client may leave
        if len(self.pipeline) > PIPELINED_MAX:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._waiting_bytes = 0
        super().on_body(body)
        if self.cycle is not self._answering and len(self.cycle.body) > PIPELINED_BYTES_MAX:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """End the body of the request."""
        self._has_more_body = False
        if self._deadline is not None:  # the request was answered before
            self._stop_waiting()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next request; give the client time to read where there is none."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection that is not used."""
        super().timeout_keep_alive_handler()
        self._await_reader()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Write again."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Reply to what is no request of HTTP."""
        self._refuse(400, msg.lower().removesuffix("."), "INVALID_REQUEST")

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _ends_headers(self, data: bytes) -> bool:
        return self._waiting_bytes <= HEADERS_BYTES or b"\r\n\r\n" in data[:HEADERS_BYTES]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _await_reader(self) -> None:
        if self._read_deadline is None:
            self._read_deadline = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _stop_waiting_for_reader(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _await_headers(self) -> None:
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
        """Send an error and close the connection; close it at once within another reply."""
        self._stop_waiting()
        answering = self._answering
        if answering and answering.response_started and not answering.response_complete:
            self.transport.abort()
            return
        reply = error_reply(HttpError(status, text, reason))
        headers: list[Any] = [(b"connection", b"close"), *reply.raw_headers, *SECURITY_HEADERS]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(
            b"HTTP/1.1 %d Refused\r\n%b\r\n%b" % (status, b"".join(lines), bytes(reply.body))
        )
        self.transport.close()
        self._await_reader()
