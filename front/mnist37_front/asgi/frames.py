"""gRPC over HTTP/2: the frames of messages, and the status in the trailers."""

from __future__ import annotations

import base64
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

import grpc

from mnist37_front.asgi.context import AsgiContext

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADER = struct.Struct(">BI")  # whether the message is compressed, and its length
CONTENT_TYPE = (b"content-type", b"application/grpc")
# Printable ASCII but the percent sign, as gRPC encodes the text of a status.
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [CONTENT_TYPE],
    "trailers": True,
}
OK_TRAILERS: Message = {
    "type": "http.response.trailers",
    "headers": [(b"grpc-status", b"0")],
    "more_trailers": False,
}


class InvalidFrame(Exception):
    """A request that is no message of gRPC; it has the code of the status.

    Args:
        code: of the status.
        text: of the status.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Disconnected(Exception):
    """The caller has gone before its message was complete."""


async def read_message(
    receive: Receive, bytes_max: int, hold: Callable[[int], object]
) -> bytes | None:
    """Return the one message of a call; None if the call has none.

    Args:
        receive: of the call.
        bytes_max: the most bytes of the message.
        hold: is told how many bytes each part of a message has that does not come in one.

    Raises:
        InvalidFrame: the message is too large or compressed, or there is more than one.
        Disconnected: the caller has gone.
    """
    event = await receive()
    body: bytes = event.get("body", b"")
    # A small message comes in one piece.
    if event.get("more_body"):
        chunks, size = [body], len(body)
        hold(size)
        while event.get("more_body"):
            event = await receive()
            chunk = event.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            hold(len(chunk))
            if size > bytes_max + HEADER.size or len(chunks) == 2:
                check_header(b"".join(chunks)[: HEADER.size], bytes_max)
            if size > bytes_max + HEADER.size:
                raise too_many_messages()
        body = b"".join(chunks)
    if event["type"] == "http.disconnect":
        raise Disconnected
    if not body:
        return None
    length = check_header(body, bytes_max)
    if length is None or len(body) < HEADER.size + length:
        raise InvalidFrame(
            grpc.StatusCode.INTERNAL, "the request ends within its message; send it whole"
        )
    if len(body) > HEADER.size + length:
        raise too_many_messages()
    return body[HEADER.size :]


def check_header(body: bytes, bytes_max: int) -> int | None:
    """Return the length of the message that a body begins with; None if it is not known yet.

    Raises:
        InvalidFrame: the message is compressed, or too large.
    """
    if len(body) < HEADER.size:
        return None
    compressed, length = HEADER.unpack_from(body)
    if compressed:
        raise InvalidFrame(
            grpc.StatusCode.UNIMPLEMENTED, "the message is compressed; send it uncompressed"
        )
    if length > bytes_max:
        raise InvalidFrame(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Received message larger than max ({length} vs. {bytes_max})",  # as gRPC's core says
        )
    return int(length)


def too_many_messages() -> InvalidFrame:
    """Return the error for a request with more than one message."""
    return InvalidFrame(grpc.StatusCode.UNIMPLEMENTED, "the call has one message; send no more")


def frame(message: bytes) -> Message:
    """Return the event of ASGI that sends a message."""
    return {
        "type": "http.response.body",
        "body": HEADER.pack(0, len(message)) + message,
        "more_body": False,
    }


def trailers(context: AsgiContext, code: grpc.StatusCode) -> list[tuple[bytes, bytes]]:
    """Return the status of a call, and its trailing metadata."""
    found = [(b"grpc-status", b"%d" % code.value[0])]
    if text := context.details():
        found.append((b"grpc-message", quote(text, safe=PLAIN).encode()))
    for name, value in context.trailing_metadata():
        if name.endswith("-bin"):
            raw = value if isinstance(value, bytes) else value.encode()
            encoded = base64.b64encode(raw).rstrip(b"=")
        else:
            encoded = value.encode() if isinstance(value, str) else value
        found.append((name.encode(), encoded))
    return found
