"""What can go wrong, as exceptions; the mirror image of the server's status codes.

Mnist37Error
├── InvalidInput        a value that is never right; a ValueError too
├── NotFound            a version that the server does not keep
├── AlreadyExists       a request_id that was used for something else
├── Aborted             a run that cannot go on, since another write came between
├── Exhausted           the server is full, or a message is too large
├── Unauthenticated     the server does not know the token, or this client not the server
├── PermissionDenied    the token's role does not allow it
├── Unavailable         nobody listens there, or the server is shutting down
├── DeadlineExceeded    no answer within the timeout
├── Cancelled           the call was cancelled
└── ServerError         a fault of the server; the message has an id for its log

Each has a `reason` for programs, where the server gives one; the README lists them.
"""

from __future__ import annotations

import re

import grpc


class Mnist37Error(Exception):
    """Any failure of a call."""

    reason: str | None = None  # a name that stays, such as TOO_MANY_CALLERS
    retry_after: float | None = None  # seconds, where the same call may well succeed later


class InvalidInput(Mnist37Error, ValueError):
    """A value that is never right: says which, what came and what would be right."""

    field: str | None = None  # of the request; None where the client found it, before sending


class NotFound(Mnist37Error):
    """A version of the model that the server does not keep."""


class AlreadyExists(Mnist37Error):
    """A request_id that was used before, for another method or other values."""


class Aborted(Mnist37Error):
    """A run that was cut off cannot go on, since another write came between."""


class Exhausted(Mnist37Error):
    """The server has no room for this call, or a message is larger than it takes."""


class Unauthenticated(Mnist37Error):
    """One of the two cannot prove who it is.

    The client's token is missing or unknown; or the server's certificate is not to be trusted.
    """


class PermissionDenied(Mnist37Error):
    """The server knows the token, whose role does not allow the call."""


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
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}


# What gRPC itself refuses at a server, in its own words: it gives no reason.
REFUSED_BY_GRPC: dict[str, tuple[str, float | None]] = {
    "Concurrent RPC limit exceeded": ("TOO_MANY_RPCS", 1.0),
    "larger than max": ("MESSAGE_TOO_LARGE", None),
}

# What gRPC says where nothing came of a call, and what that is. The first that fits counts.
UNREACHED: tuple[tuple[str, type[Mnist37Error], str], ...] = (
    (
        "CERTIFICATE_VERIFY_FAILED: ([^:]+)",
        Unauthenticated,
        "{address}: the server's certificate is not to be trusted: {0}; is tls_ca the authority"
        " that signed it?",
    ),
    (
        "Hostname Verification",
        Unauthenticated,
        "{address}: the server's certificate is for another name; if that is meant, give the name"
        " as tls_server_name",
    ),
    (
        "WRONG_VERSION_NUMBER",
        Unauthenticated,
        "{address} does not speak TLS, which tls_ca asks for",
    ),
    (
        "Failed to create security handshaker",
        InvalidInput,
        "tls_ca, tls_cert, tls_key: one holds no valid PEM, or the key is not the certificate's",
    ),
    (
        "failed to connect.*(?:Socket closed|reset by peer|Broken pipe)",
        Unavailable,
        "{address} ends the connection; does it want TLS (tls_ca), or a certificate of yours"
        " (tls_cert, tls_key)?",
    ),
    (
        "failed to connect",
        Unavailable,
        "nobody listens at {address}; is the server running? (mnist37 serve)",
    ),
)


def from_rpc(error: grpc.RpcError, address: str) -> Mnist37Error:
    """The exception for what a call of grpc ended with."""
    exception = _exception(error, address)
    if isinstance(exception, Exhausted):
        for words, (reason, retry_after) in REFUSED_BY_GRPC.items():
            if words in str(exception):
                exception.reason, exception.retry_after = reason, retry_after
    _tell(exception, error)
    return exception


def _exception(error: grpc.RpcError, address: str) -> Mnist37Error:
    """With the text alone."""
    code = error.code()
    details = error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details, address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return too_late(address)
    if code is grpc.StatusCode.INTERNAL and details == "Internal error from Core":
        # grpc.aio, where it was still sending: then it forgets the status that the server gave.
        return Unavailable(f"{address} ended the stream before all was sent; try again")
    return EXCEPTIONS.get(code, ServerError)(details)


def _unavailable(details: str, address: str) -> Mnist37Error:
    """What keeps the call from the server: gRPC has one code for it, and tells more in words."""
    for said, kind, text in UNREACHED:
        found = re.search(said, details)
        if found:
            return kind(text.format(*found.groups(), address=address))
    return Unavailable(f"{address}: {details}")


def _tell(exception: Mnist37Error, error: grpc.RpcError) -> None:
    """Hands on what the server said in google.rpc's messages, if it did."""
    # Only errors need these, and an import of the client should be quick.
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
    from grpc_status import rpc_status

    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            if detail.Unpack(info):
                exception.reason = info.reason
            elif detail.Unpack(retry):
                exception.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(bad) and isinstance(exception, InvalidInput):
                exception.field = bad.field_violations[0].field if bad.field_violations else None
    except (DecodeError, ValueError):
        pass  # details that something on the way has damaged, or given to another error


def too_late(address: str) -> DeadlineExceeded:
    """The exception for an answer that did not come in time."""
    return DeadlineExceeded(f"{address} did not answer within the timeout")
