"""What can go wrong, as exceptions; the mirror image of the server's status codes.

Mnist37Error
├── InvalidInput        a value that is never right; a ValueError too
├── NotFound            a version that the server does not keep
├── AlreadyExists       a request_id that was used for something else
├── Aborted             a run that cannot go on, since another write came between
├── Exhausted           the server is full, or a message is too large
├── Unavailable         nobody listens there, or the server is shutting down
├── DeadlineExceeded    no answer within the timeout
├── Cancelled           the call was cancelled
└── ServerError         a fault of the server; the message has an id for its log
"""

from __future__ import annotations

import grpc


class Mnist37Error(Exception):
    """Any failure of a call."""


class InvalidInput(Mnist37Error, ValueError):
    """A value that is never right: says which, what came and what would be right."""


class NotFound(Mnist37Error):
    """A version of the model that the server does not keep."""


class AlreadyExists(Mnist37Error):
    """A request_id that was used before, for another method or other values."""


class Aborted(Mnist37Error):
    """A run that was cut off cannot go on, since another write came between."""


class Exhausted(Mnist37Error):
    """The server has no room for this call, or a message is larger than 64 MiB."""


class Unavailable(Mnist37Error):
    """Nobody listens at the address, or the server is shutting down."""


class DeadlineExceeded(Mnist37Error):
    """There was no answer within the timeout."""


class Cancelled(Mnist37Error):
    """The call was cancelled before its answer came."""


class ServerError(Mnist37Error):
    """A fault of the server; the message has an id that its log has too."""


EXCEPTIONS: dict[grpc.StatusCode, type[Mnist37Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}


def from_rpc(error: grpc.RpcError, address: str) -> Mnist37Error:
    """The exception for what a call of grpc ended with."""
    code = error.code()
    details = error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details:
        details = f"nobody listens at {address}; is the server running? (mnist37 serve)"
    elif code is grpc.StatusCode.UNAVAILABLE:
        details = f"{address}: {details}"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = f"{address} did not answer within the timeout"
    return EXCEPTIONS.get(code, ServerError)(details)
