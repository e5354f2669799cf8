"""Exceptions to gRPC statuses: one table, and what becomes of those that are not in it.

A status carries its details as google.rpc messages too, so that a program need not read the text:
ErrorInfo with the reason, BadRequest with the field that is wrong, RetryInfo where it helps to try
again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import NoReturn, TypeVar

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
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    Refusal,
    ShuttingDown,
    Unauthenticated,
)

log = logging.getLogger(__name__)

CODES: dict[type[Refusal], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Aborted: grpc.StatusCode.ABORTED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    CallerCancelled: grpc.StatusCode.CANCELLED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Where the same request may well be carried out a little later: after how many seconds.
RETRY_AFTER_SECONDS: dict[Reason, float] = {
    Reason.TOO_MANY_PENDING_WRITES: 1.0,
    Reason.TOO_MANY_STREAMS: 1.0,
    Reason.SHUTTING_DOWN: 0.5,  # there may be another server soon
    Reason.DEVICE_LOST: 5.0,  # likewise, once somebody has noticed
}

DOMAIN = "mnist37"  # of the reasons, which are unique within it

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")


def refuse(
    context: grpc.ServicerContext,
    error: Exception,
    method: str | None = None,
    request: object = None,
) -> NoReturn:
    """Ends the RPC with what the caller may know of the error.

    Of an unforeseen one that is an id, which the log has too, with all the rest.
    """
    code = CODES.get(type(error))  # type: ignore[arg-type]
    fields = {"method": method, "request_id": getattr(request, "request_id", None) or None}
    if isinstance(error, Refusal) and code is not None:
        log.debug("refused", extra={**fields, "code": code.name, "reason": error.reason.name})
        abort(context, code, str(error), *details(error))
    number = uuid.uuid4().hex[:12]
    fields["code"] = "INTERNAL"
    log.error("internal error %s", number, exc_info=error, extra=fields)
    info = error_info(Reason.INTERNAL, {"id": number})
    abort(context, grpc.StatusCode.INTERNAL, f"internal error {number}", info)


def details(error: Refusal) -> Iterator[Message]:
    """What a program may want to know of a refusal."""
    yield error_info(error.reason, error.metadata)
    if isinstance(error, InvalidArgument):
        violation = BadRequest.FieldViolation(field=error.field, description=error.description)
        yield BadRequest(field_violations=[violation])
    if error.reason in RETRY_AFTER_SECONDS:
        delay = Duration()
        delay.FromNanoseconds(round(RETRY_AFTER_SECONDS[error.reason] * 1e9))
        yield RetryInfo(retry_delay=delay)


def error_info(reason: Reason, about: Mapping[str, object]) -> ErrorInfo:
    """The reason, and what it is about."""
    metadata = {name: str(value) for name, value in about.items()}
    return ErrorInfo(reason=reason.name, domain=DOMAIN, metadata=metadata)


def abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, text: str, *details: Message
) -> NoReturn:
    """Ends the RPC with a code, a text and what else there is to say."""
    status = Status(code=code.value[0], message=text)
    for detail in details:
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))


def remaining_seconds(context: grpc.ServicerContext) -> float:
    """The seconds until a call's deadline, near endless where it has none.

    To be asked before any work: a call may have waited long for a thread and its message.

    Raises:
        DeadlineExceeded: it has passed.
    """
    seconds = context.time_remaining()
    if not seconds:
        raise DeadlineExceeded("the deadline passed before the call's turn came; nothing was done")
    return float(seconds)


def check_caller_waits(context: grpc.ServicerContext) -> None:
    """To be called before any work, as `remaining`.

    Raises:
        DeadlineExceeded: the call's deadline has passed.
        CallerCancelled: the caller has cancelled it.
    """
    remaining_seconds(context)
    if not context.is_active():
        raise CallerCancelled("the caller left")


def unary_handler(
    method: Callable[[S, Q, grpc.ServicerContext], R],
) -> Callable[[S, Q, grpc.ServicerContext], R]:
    """Makes a method with one answer end with a status for whatever it raises.

    For one that asks by itself whether the caller still waits, where it is worth it: grpcio has
    asked that when it had a thread, and only the message may have been long on its way since.
    """

    @wraps(method)
    def answer(self: S, request: Q, context: grpc.ServicerContext) -> R:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - this is where they all end
            refuse(context, error, method.__name__, request)

    return answer


def cancellable_unary_handler(
    method: Callable[[S, Q, grpc.ServicerContext], R],
) -> Callable[[S, Q, grpc.ServicerContext], R]:
    """The same for one that is not begun when the caller waits no longer."""

    @wraps(method)
    def wanted(self: S, request: Q, context: grpc.ServicerContext) -> R:
        check_caller_waits(context)
        return method(self, request, context)

    return unary_handler(wanted)


def stream_handler(
    method: Callable[[S, Q, grpc.ServicerContext], Iterator[R]],
) -> Callable[[S, Q, grpc.ServicerContext], Iterator[R]]:
    """The same for a method with a stream of answers."""

    @wraps(method)
    def answers(self: S, request: Q, context: grpc.ServicerContext) -> Iterator[R]:
        try:
            check_caller_waits(context)
            yield from method(self, request, context)
        except grpc.RpcError:
            raise  # from the stream of requests, whose caller left: grpc's own way to end the RPC
        except Exception as error:  # noqa: BLE001 - this is where they all end
            refuse(context, error, method.__name__, request)

    return answers
