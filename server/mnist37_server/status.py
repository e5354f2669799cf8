"""Exceptions to gRPC status codes: one table, and what becomes of those that are not in it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from functools import wraps
from typing import NoReturn, TypeVar

import grpc

from mnist37_server.errors import (
    Aborted,
    AlreadyExists,
    CallerLeft,
    Exhausted,
    InvalidArgument,
    NotFound,
    Refused,
    ShuttingDown,
)

log = logging.getLogger(__name__)

CODES: dict[type[Refused], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Aborted: grpc.StatusCode.ABORTED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    CallerLeft: grpc.StatusCode.CANCELLED,
}

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")


def refuse(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """Ends the RPC with what the caller may know of the error.

    Of an unforeseen one that is an id, which the log has too, with all the rest.
    """
    code = CODES.get(type(error))  # type: ignore[arg-type]
    if code is not None:
        context.abort(code, str(error))
    number = uuid.uuid4().hex[:12]
    log.error("internal error %s", number, exc_info=error)
    context.abort(grpc.StatusCode.INTERNAL, f"internal error {number}")


def unary(
    method: Callable[[S, Q, grpc.ServicerContext], R],
) -> Callable[[S, Q, grpc.ServicerContext], R]:
    """Makes a method with one answer end with a status for whatever it raises."""

    @wraps(method)
    def answer(self: S, request: Q, context: grpc.ServicerContext) -> R:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 - this is where they all end
            refuse(context, error)

    return answer


def stream(
    method: Callable[[S, Q, grpc.ServicerContext], Iterator[R]],
) -> Callable[[S, Q, grpc.ServicerContext], Iterator[R]]:
    """The same for a method with a stream of answers."""

    @wraps(method)
    def answers(self: S, request: Q, context: grpc.ServicerContext) -> Iterator[R]:
        try:
            yield from method(self, request, context)
        except grpc.RpcError:
            raise  # from the stream of requests, whose caller left: grpc's own way to end the RPC
        except Exception as error:  # noqa: BLE001 - this is where they all end
            refuse(context, error)

    return answers
