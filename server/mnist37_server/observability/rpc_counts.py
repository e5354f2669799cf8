"""The counts of one RPC method, and the handlers that count its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache, wraps
from time import perf_counter
from typing import Any

import grpc
from grpc import StatusCode

from mnist37_server.observability.histogram import Histogram
from mnist37_server.rpc.handlers import Handler
from mnist37_server.rpc.threads.elastic_pool import MustWait

# Seconds: Prometheus' usual buckets, with smaller and larger ones added, since a Predict takes less
# than a millisecond and a Train takes minutes.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

# Go's spelling, which the dashboards query: InvalidArgument, and Canceled with one l.
CODES = {
    code: "OK" if code is StatusCode.OK else code.name.title().replace("_", "")
    for code in StatusCode
} | {StatusCode.CANCELLED: "Canceled"}

OK = StatusCode.OK  # most calls end with it, and a look-up in an Enum is slow
# When the RPC arrived, on perf_counter's clock.
arrival_time: ContextVar[float] = ContextVar("arrival_time")
Behavior = Callable[..., Any]


class MethodCounts:
    """The counts of one RPC method.

    Attributes:
        labels: the values of LABELS in rpc_metrics.
        rpcs_started: RPCs that arrived.
        handlers_started: RPCs whose handler has started.
        seconds: from an RPC's arrival to the end of its handler.
        handler: a handler that counts, and calls the service's own; None until it is made.
    """

    def __init__(self, kind: str, service: str, name: str) -> None:
        self.labels = [kind, service, name]
        # Without the lock, for which grpcio's serving thread would wait: each event loop of a front
        # counts too, but CPython switches threads only at calls and at the ends of loops, so `+= 1`
        # loses no count.
        self.rpcs_started = 0
        # guarded by lock: handlers_started, _failed, seconds
        self.lock = threading.Lock()
        self.handlers_started = 0
        # OK is not counted here, since a look-up by code is slow: read() subtracts.
        self._failed = dict.fromkeys(StatusCode, 0)
        self.seconds = Histogram(BOUNDS)
        self.handler: Handler | None = None

    def begin(self) -> None:
        """Count the start of a call's handler."""
        with self.lock:
            self.handlers_started += 1

    def end_handler(self, context: grpc.ServicerContext, default: StatusCode) -> None:
        """Count the end of a call's handler, with the code and the time of the call.

        Args:
            context: the call's; this method must run in the call's context variables.
            default: the call's code, if the handler set none and the caller still waits.
        """
        seconds = perf_counter() - arrival_time.get()
        self.end(final_code(context, seconds, default), seconds)

    def end(self, code: StatusCode, seconds: float = 0.0) -> None:
        """Count the end of a call."""
        with self.lock:
            self.seconds.add(seconds)
            if code is not OK:
                self._failed[code] += 1

    def read(self) -> tuple[int, dict[StatusCode, int], list[tuple[float, int]], float]:
        """Return the counts of the method at one moment.

        Returns:
            The calls in progress; the completed calls by code; the completed calls that took up to
            each bound of seconds; and the seconds of all completed calls.
        """
        with self.lock:
            starts, codes = self.handlers_started, dict(self._failed)
            cumulative, seconds = self.seconds.cumulative(), self.seconds.sum
        completed = cumulative[-1][1]
        codes[StatusCode.OK] = completed - sum(codes.values())
        return starts - completed, codes, cumulative, seconds


@lru_cache(256)  # calls without access are refused by the same few handlers, again and again
def counting_handler(method: MethodCounts, handler: Handler) -> Handler:
    """Return a handler that calls this one and counts its calls.

    Args:
        method: of the calls.
        handler: whose requests are a stream, as those of rpc/registration all are.
    """
    make: Callable[..., Handler]
    behavior: Any
    if handler.response_streaming:
        behavior, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
        behavior = count_stream(method, behavior)
    else:
        behavior, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
        behavior = count_unary(method, behavior)
    return make(behavior, handler.request_deserializer, handler.response_serializer)


def count_unary(method: MethodCounts, behavior: Behavior) -> Behavior:
    """Wrap a behavior that returns one response, so that its calls are counted."""
    lock, seconds = method.lock, method.seconds

    @wraps(behavior)  # keeps its attribute with the thread pool, which grpcio looks for
    def count_call(request: object, context: grpc.ServicerContext) -> object:
        # begin() and end_handler(), inlined for a call that succeeds: between two calls other code
        # fills the processor's caches, so each function on the way costs time.
        with lock:
            method.handlers_started += 1
        try:
            response = behavior(request, context)
        except MustWait:  # the call begins again on another thread
            with lock:
                method.handlers_started -= 1
            raise
        except BaseException:
            method.end_handler(context, StatusCode.UNKNOWN)
            raise
        if context.is_active() and context.code() is None:  # type: ignore[attr-defined]
            elapsed = perf_counter() - arrival_time.get()
            with lock:
                seconds.add(elapsed)
        else:
            method.end_handler(context, OK)
        return response

    return count_call


def count_stream(method: MethodCounts, behavior: Behavior) -> Behavior:
    """Wrap a behavior that returns an iterator of responses, so that its calls are counted."""

    @wraps(behavior)
    def count_call(request: object, context: grpc.ServicerContext) -> Iterator[object]:
        method.begin()
        code = StatusCode.UNKNOWN
        try:
            yield from behavior(request, context)
            code = StatusCode.OK
        finally:  # also if grpcio drops the iterator, since the caller left
            method.end_handler(context, code)

    return count_call


def final_code(context: grpc.ServicerContext, seconds: float, default: StatusCode) -> StatusCode:
    """Return the code of a call whose handler ends now.

    Args:
        context: the call's.
        seconds: the time since the call arrived.
        default: the code of a call whose handler set none.
    """
    if context.is_active():
        code = context.code()  # type: ignore[attr-defined]  # in grpcio, not in its stubs
        return default if code is None else known_code(code)
    # grpcio sends no status, whatever the handler returns: the caller left, or its deadline passed.
    # A client whose deadline has passed cancels the call, and the cancellation may arrive before
    # the deadline passes here: gRPC sends timeouts rounded up, by a hundredth at most.
    is_late = context.time_remaining() < 0.05 + seconds / 100
    return StatusCode.DEADLINE_EXCEEDED if is_late else StatusCode.CANCELLED


def known_code(code: object) -> StatusCode:
    """Return a code that a handler set, or UNKNOWN if it is no status code, as grpcio does."""
    return code if isinstance(code, StatusCode) else StatusCode.UNKNOWN
