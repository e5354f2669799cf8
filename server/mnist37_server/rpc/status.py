"""The translation of exceptions to gRPC statuses, with one table of codes.

A status also carries google.rpc messages, so that a program need not parse the text: ErrorInfo with
the reason, BadRequest with the invalid field, and RetryInfo where a retry can help. An exception
that is not in the table ends the RPC with INTERNAL.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import NamedTuple, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from mnist37_server.errors import (
    Aborted,
    AlreadyExists,
    CallerCancelled,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    MalformedMessage,
    NotFound,
    PermissionDenied,
    Reason,
    Refusal,
    ShuttingDown,
    StorageBusy,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger(__name__)

CODES: dict[type[Refusal], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Aborted: grpc.StatusCode.ABORTED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StorageBusy: grpc.StatusCode.UNAVAILABLE,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    CallerCancelled: grpc.StatusCode.CANCELLED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Reasons after which the same request can succeed later, and how long the caller should wait.
RETRY_AFTER_SECONDS: dict[Reason, float] = {
    Reason.TOO_MANY_PENDING_WRITES: 1.0,
    Reason.TOO_MANY_STREAMS: 1.0,
    Reason.BEHIND: 0.25,
    Reason.STALE: 1.0,
    Reason.OWNER_UNREACHABLE: 1.0,
    Reason.SHUTTING_DOWN: 0.5,  # another server may have started by then
    Reason.STORAGE_BUSY: 1.0,
    Reason.STATE_LOST: 5.0,  # a supervisor has to restart the server
    Reason.DEVICE_LOST: 5.0,  # a probe has to notice the loss before another one starts
}

DOMAIN = "mnist37"  # reasons are unique within this domain of ErrorInfo

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")


class Failure(NamedTuple):
    """What a caller is told of a request that fails."""

    code: grpc.StatusCode
    text: str
    details: tuple[Message, ...]  # google.rpc messages


def refuse(
    context: grpc.ServicerContext,
    error: Exception,
    method: str | None = None,
    request: object = None,
) -> NoReturn:
    """End the RPC with the status that belongs to an exception, and log it.

    Args:
        context: the RPC's.
        error: why the RPC fails.
        method: the name of the RPC's method, for the log.
        request: the RPC's message; the log names its request_id if it has one.
    """
    failure = log_failure(error, method, request)
    abort(context, failure.code, failure.text, *failure.details)


def log_failure(error: Exception, method: str | None = None, request: object = None) -> Failure:
    """Log why a request fails; return what its caller is told.

    For an unexpected exception the caller gets only an id. The log has the same id, with the stack
    trace.

    Args:
        error: why the request fails.
        method: the name of the RPC's method, for the log.
        request: the message; the log names its request_id if it has one.
    """
    code = CODES.get(type(error))  # type: ignore[arg-type]
    fields = {"method": method, "request_id": getattr(request, "request_id", None) or None}
    if isinstance(error, Refusal) and code is not None:
        log.debug("refused", extra={**fields, "code": code.name, "reason": error.reason.name})
        return Failure(code, str(error), tuple(details(error)))
    error_id = uuid.uuid4().hex[:12]
    fields["code"] = "INTERNAL"
    log.error("internal error %s", error_id, exc_info=error, extra=fields)
    info = error_info(Reason.INTERNAL, {"id": error_id})
    return Failure(grpc.StatusCode.INTERNAL, f"internal error {error_id}", (info,))


def details(error: Refusal) -> Iterator[Message]:
    """Yield the google.rpc messages that describe a refusal to a program."""
    yield error_info(error.reason, error.metadata)
    if isinstance(error, InvalidArgument):
        violation = BadRequest.FieldViolation(field=error.field, description=error.description)
        yield BadRequest(field_violations=[violation])
    if error.reason in RETRY_AFTER_SECONDS:
        delay = Duration()
        delay.FromNanoseconds(round(RETRY_AFTER_SECONDS[error.reason] * 1e9))
        yield RetryInfo(retry_delay=delay)


def error_info(reason: Reason, metadata: Mapping[str, object]) -> ErrorInfo:
    """Return an ErrorInfo with this reason, and with the metadata's values as strings."""
    values = {name: str(value) for name, value in metadata.items()}
    return ErrorInfo(reason=reason.name, domain=DOMAIN, metadata=values)


def abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, text: str, *details: Message
) -> NoReturn:
    """End the RPC with a code, a text and google.rpc messages."""
    status = Status(code=code.value[0], message=text)
    for detail in details:
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))


def remaining_seconds(context: grpc.ServicerContext) -> float:
    """Return the seconds until a call's deadline, or a huge number if the call has no deadline.

    Call it before any work: the call may have waited long for a thread and for its message.

    Raises:
        DeadlineExceeded: the deadline has passed.
    """
    seconds = context.time_remaining()
    if not seconds:
        raise DeadlineExceeded("the deadline passed before the call's turn came; nothing was done")
    return float(seconds)


def check_caller_waits(context: grpc.ServicerContext) -> None:
    """Raise unless the caller still waits for the answer.

    Call it before any work: the call may have waited long for a thread and for its message.

    Raises:
        DeadlineExceeded: the call's deadline has passed.
        CallerCancelled: the caller has cancelled the call.
    """
    remaining_seconds(context)
    if not context.is_active():
        raise CallerCancelled("the caller left")


def unary_handler(
    method: Callable[[S, Q, grpc.ServicerContext], R],
) -> Callable[[S, Q, grpc.ServicerContext], R]:
    """Return a method with one response that turns every exception into a status.

    It does not check whether the caller still waits. The method checks that itself where the check
    pays off: grpcio has checked it when it assigned the thread, and since then only the message may
    have taken long to arrive.
    """

    @wraps(method)
    def call_method(self: S, request: Q, context: grpc.ServicerContext) -> R:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - the last handler of any exception
            refuse(context, error, method.__name__, request)

    return call_method


def cancellable_unary_handler(
    method: Callable[[S, Q, grpc.ServicerContext], R],
) -> Callable[[S, Q, grpc.ServicerContext], R]:
    """Return a method with one response that does nothing if its caller no longer waits.

    It turns every exception into a status.
    """

    @wraps(method)
    def call_if_awaited(self: S, request: Q, context: grpc.ServicerContext) -> R:
        check_caller_waits(context)
        return method(self, request, context)

    return unary_handler(call_if_awaited)


def stream_handler(
    method: Callable[[S, Q, grpc.ServicerContext], Iterator[R]],
) -> Callable[[S, Q, grpc.ServicerContext], Iterator[R]]:
    """Return a method with a stream of responses that does nothing if its caller no longer waits.

    It turns every exception into a status.
    """

    @wraps(method)
    def call_method(self: S, request: Q, context: grpc.ServicerContext) -> Iterator[R]:
        try:
            check_caller_waits(context)
            yield from method(self, request, context)
        except grpc.RpcError:
            raise  # from the stream of requests: the caller left, and grpcio ends the RPC by itself
        except Exception as error:  # noqa: BLE001 - the last handler of any exception
            refuse(context, error, method.__name__, request)

    return call_method
