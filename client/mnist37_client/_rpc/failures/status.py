"""Translation of gRPC's statuses into the exceptions of mnist37_client.errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc

from mnist37_client._rpc.failures import intermediaries
from mnist37_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    HistoryLost,
    InvalidInput,
    Mnist37Error,
    NotFound,
    NotOwner,
    PermissionDenied,
    ServerError,
    Unauthenticated,
    Unavailable,
    deadline_exceeded,
    one_line,
)

if TYPE_CHECKING:
    from mnist37_client.results import Position

EXCEPTIONS: dict[grpc.StatusCode, type[Mnist37Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}

# The texts with which gRPC itself refuses a call at a server: it sends no reason and no delay.
REFUSED_BY_GRPC: dict[str, tuple[str, float | None]] = {
    "Concurrent RPC limit exceeded": ("TOO_MANY_RPCS", 1.0),
    "larger than max": ("MESSAGE_TOO_LARGE", None),
}

# The codes with which gRPC itself ends a call that got no status from the server.
GRPCS_OWN_CODES = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}

# A part of gRPC's text, with CANCELLED, for the end of the last attempt at a follower.
ATTEMPT_TIMED_OUT = "perAttemptRecvTimeout exceeded"

# gRPC's own texts for a call that has ended with CANCELLED; for each the exception and its text.
CANCELLED_BY_GRPC: dict[str, tuple[type[Mnist37Error], str]] = {
    "Locally cancelled by application!": (Cancelled, "{address}: the call was cancelled"),
    # The server reset the call, as its core does where too many arrive.
    "CANCELLED": (Unavailable, "{address} dropped the call; it has too many, or waited too long"),
}

# The texts by which gRPC reports that a call did not reach the server; for each the exception and
# its text. The first pattern that matches counts.
CONNECTION_FAILURES: tuple[tuple[str, type[Mnist37Error], str], ...] = (
    (
        "CERTIFICATE_VERIFY_FAILED: certificate has expired",
        Unauthenticated,
        "{address}: the server's certificate has expired; its operator has to renew it",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid",
        Unauthenticated,
        "{address}: the server's certificate is not valid yet; is this machine's clock right?",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED: ([^:]+)",
        Unauthenticated,
        "{address}: the server's certificate is not trusted: {0}; is tls_ca the authority"
        " that signed it?",
    ),
    (
        "Hostname Verification",
        Unauthenticated,
        "{address}: the server's certificate is for another name; if that name is right, give it"
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
        # With one address, and with a list of followers.
        "(?:failed to connect|connections to all backends failing)"
        ".*(?:Socket closed|reset by peer|Broken pipe|TSI_DATA_CORRUPTED)",
        Unavailable,
        "{address} closed the connection; does it require TLS (tls_ca)? With TLS, it requires a"
        " certificate of yours (tls_cert, tls_key), or has refused it as expired, not yet valid or"
        " of another authority; its log says which",
    ),
    (
        "backend unhealthy",
        Unavailable,
        "{address}: no follower is ready; they have not reached their owner yet, or are shutting"
        " down",
    ),
    (
        "[Ff]ailed to connect|connection attempt timed out",
        Unavailable,
        "no server listens at {address}; is the server running? (mnist37 serve)",
    ),
)


def from_rpc(error: grpc.RpcError, address: str) -> Mnist37Error:
    """Return the exception for a failed call of gRPC."""
    exception = _exception(error, address)
    if isinstance(exception, Exhausted):
        for text, (reason, retry_after) in REFUSED_BY_GRPC.items():
            if text in str(exception):
                exception.reason, exception.retry_after = reason, retry_after
    metadata = _add_details(exception, error)
    if isinstance(exception, FailedPrecondition):
        return _failed_precondition(exception, metadata)
    return exception


def _failed_precondition(
    exception: FailedPrecondition, metadata: Mapping[str, str]
) -> FailedPrecondition:
    """Return the exception of the class that its reason has."""
    if exception.reason == "NOT_OWNER":
        specific: FailedPrecondition = NotOwner(str(exception))
    elif exception.reason == "HISTORY_LOST":
        specific = lost = HistoryLost(str(exception))
        lost.position = _position(metadata, "start", "version")
        lost.floor = _position(metadata, "floor_start", "floor_version")
    else:
        return exception
    specific.reason, specific.retry_after = exception.reason, exception.retry_after
    return specific


def _position(metadata: Mapping[str, str], start: str, version: str) -> Position | None:
    """Return the position in an error's metadata; None if there is none."""
    from mnist37_client.results import Position

    numbers = metadata.get(start, ""), metadata.get(version, "")
    if not all(re.fullmatch("[0-9]{1,20}", number) for number in numbers):
        return None
    return Position(*map(int, numbers))


def _exception(error: grpc.RpcError, address: str) -> Mnist37Error:
    """Return the exception without its reason and the other details."""
    code = error.code()
    details = one_line(error.details() or "")
    exception = intermediaries.explain(details, address) if code in GRPCS_OWN_CODES else None
    if exception is not None:
        return exception
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(details, address)
    if code is grpc.StatusCode.CANCELLED:
        return _cancelled(details, address)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline_exceeded(address)
    if code is grpc.StatusCode.INTERNAL and details == "Internal error from Core":
        # grpc.aio reports this if the server ended a stream while the client was still sending; the
        # status that the server sent is lost.
        return ended_while_sending(address)
    return EXCEPTIONS.get(code, ServerError)(details or f"{address}: {code.name} without a text")


def _cancelled(details: str, address: str) -> Mnist37Error:
    """Return the exception for CANCELLED; only the text of gRPC says what the cause is."""
    if ATTEMPT_TIMED_OUT in details:
        return Unavailable(f"{address}: no follower answered soon enough")
    if details not in CANCELLED_BY_GRPC:  # the server's own text, which may have braces
        return Cancelled(details or f"{address}: CANCELLED without a text")
    kind, text = CANCELLED_BY_GRPC[details]
    return kind(text.format(address=address))


class StatusLost(Unavailable):
    """A stream that the server ended while the client was sending.

    The status that the server sent is lost, so it is not known whether a retry helps.
    """


def ended_while_sending(address: str) -> StatusLost:
    """Return the exception for a stream that the server ended while the client was sending."""
    return StatusLost(f"{address} ended the stream before all was sent; try again")


def no_owner(rpc: str) -> NotOwner:
    """Return the exception for a call that needs the owner, by a client that knows none."""
    return NotOwner(f"{rpc}: only the owner of the model answers it; give its address")


def _unavailable(details: str, address: str) -> Mnist37Error:
    """Return the exception for UNAVAILABLE; only the text of gRPC says what the cause is."""
    for pattern, kind, text in CONNECTION_FAILURES:
        match = re.search(pattern, details)
        if match:
            return kind(text.format(*match.groups(), address=address))
    return Unavailable(f"{address}: {details}")


def _add_details(exception: Mnist37Error, error: grpc.RpcError) -> Mapping[str, str]:
    """Add the reason, delay and field that the server sent as google.rpc messages, if any.

    Returns:
        The metadata of the reason.
    """
    # Only errors need these modules, and the client must be fast to import.
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
    from grpc_status import rpc_status

    info, retry, bad_request = ErrorInfo(), RetryInfo(), BadRequest()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            if detail.Unpack(info):
                exception.reason = one_line(info.reason)
            elif detail.Unpack(retry):
                exception.retry_after = max(0.0, retry.retry_delay.ToNanoseconds() / 1e9)
            elif detail.Unpack(bad_request) and isinstance(exception, InvalidInput):
                violations = bad_request.field_violations
                exception.field = one_line(violations[0].field) if violations else None
    except (DecodeError, ValueError):
        pass  # a proxy damaged the details, or attached them to another error
    return info.metadata
