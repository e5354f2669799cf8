"""What a call of gRPC ended with, as an exception of mnist37_client.errors."""

from __future__ import annotations

import re

import grpc

from mnist37_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    InvalidInput,
    Mnist37Error,
    NotFound,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
    deadline_exceeded,
)

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
    _add_details(exception, error)
    return exception


def _exception(error: grpc.RpcError, address: str) -> Mnist37Error:
    """With the text alone."""
    code = error.code()
    details = error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details, address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline_exceeded(address)
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


def _add_details(exception: Mnist37Error, error: grpc.RpcError) -> None:
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
