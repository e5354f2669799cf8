"""The calls of one RPC method, counted; and the handlers that count them."""

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

# The usual ones, and both smaller and larger: a Predict takes less than a millisecond, a Train
# minutes.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

# As Go spells them, in whose words the dashboards ask: InvalidArgument, Canceled with one l.
CODES = {
    code: "OK" if code is StatusCode.OK else code.name.title().replace("_", "")
    for code in StatusCode
} | {StatusCode.CANCELLED: "Canceled"}

FORMS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

OK = StatusCode.OK  # what most calls end with: a look-up in an Enum is slow
arrival_time: ContextVar[float] = ContextVar(
    "arrived"
)  # when the RPC came in, on perf_counter's clock
Behavior = Callable[..., Any]


class MethodCounts:
    """The numbers of one RPC method."""

    def __init__(self, kind: str, service: str, name: str) -> None:
        self.labels = [kind, service, name]
        self.started = 0  # by the one thread that interceptors run in
        self.lock = threading.Lock()  # guards the three below
        self.begun = 0
        self._failed = dict.fromkeys(StatusCode, 0)  # all but OK: a look-up by code is slow
        self.seconds = Histogram(BOUNDS)
        self.handler: Handler | None = None  # counts, and does what the service's own does

    def begin(self) -> None:
        """A call's handler begins."""
        with self.lock:
            self.begun += 1

    def handled(self, context: grpc.ServicerContext, otherwise: StatusCode) -> None:
        """A call's handler is done.

        Args:
            context: the call's, in which this runs.
            otherwise: the call's code, if it has set none and the caller is still there.
        """
        seconds = perf_counter() - arrival_time.get()
        self.end(final_code(context, seconds, otherwise), seconds)

    def end(self, code: StatusCode, seconds: float = 0.0) -> None:
        """A call is over."""
        with self.lock:
            self.seconds.add(seconds)
            if code is not OK:
                self._failed[code] += 1

    def read(self) -> tuple[int, dict[StatusCode, int], list[tuple[float, int]], float]:
        """Calls in progress, calls ended by code, and how long those took: cumulated, in all."""
        with self.lock:
            begun, codes = self.begun, dict(self._failed)
            cumulative, seconds = self.seconds.cumulative(), self.seconds.sum
        ended = cumulative[-1][1]
        codes[StatusCode.OK] = ended - sum(codes.values())
        return begun - ended, codes, cumulative, seconds


@lru_cache(256)  # strangers' calls are refused with the same few handlers again and again
def counting_handler(method: MethodCounts, handler: Handler) -> Handler:
    """A handler that does what this one does, and counts its calls."""
    kind, make = FORMS[handler.request_streaming, handler.response_streaming]
    behavior: Behavior = getattr(handler, kind)
    if getattr(behavior, "experimental_non_blocking", False):
        behavior = count_non_blocking(method, behavior)
    elif handler.response_streaming:
        behavior = count_stream(method, behavior)
    else:
        behavior = count_unary(method, behavior)
    deserializer = handler.request_deserializer
    if deserializer is not None and not handler.request_streaming:
        deserializer = count_undecodable(method, deserializer)
    counted: Handler = make(behavior, deserializer, handler.response_serializer)
    return counted


def count_unary(method: MethodCounts, behavior: Behavior) -> Behavior:
    """Counts the calls of a behavior that returns its one response."""
    lock, seconds = method.lock, method.seconds

    @wraps(behavior)  # with the thread pool that grpcio looks for on it
    def answer(request: object, context: grpc.ServicerContext) -> object:
        # begin() and handled(), without a call where a call ends well: between two of them the
        # processor's caches are others', and each function that is passed through costs its share.
        with lock:
            method.begun += 1
        try:
            response = behavior(request, context)
        except BaseException:
            method.handled(context, StatusCode.UNKNOWN)
            raise
        if context.is_active() and context.code() is None:  # type: ignore[attr-defined]
            took = perf_counter() - arrival_time.get()
            with lock:
                seconds.add(took)
        else:
            method.handled(context, OK)
        return response

    return answer


def count_stream(method: MethodCounts, behavior: Behavior) -> Behavior:
    """The same for one that returns an iterator of responses."""

    @wraps(behavior)
    def answers(request: object, context: grpc.ServicerContext) -> Iterator[object]:
        method.begin()
        code = StatusCode.UNKNOWN
        try:
            yield from behavior(request, context)
            code = StatusCode.OK
        finally:  # also where grpcio drops the iterator, since the caller left
            method.handled(context, code)

    return answers


def count_non_blocking(method: MethodCounts, behavior: Behavior) -> Behavior:
    """The same for one that is given a function to send its responses with, as Watch of health."""

    @wraps(behavior)
    def answer(
        request: object, context: grpc.ServicerContext, send: Callable[[object], None]
    ) -> object:
        method.begin()
        began = arrival_time.get()
        code = StatusCode.CANCELLED  # unless it is told that there are no more responses

        def sending(response: object) -> None:
            nonlocal code
            if response is None:
                code = StatusCode.OK
            send(response)

        def over() -> None:
            told = context.code()  # type: ignore[attr-defined]
            method.end(code if told is None else known_code(told), perf_counter() - began)

        if not context.add_callback(over):
            over()
        try:
            return behavior(request, context, sending)
        except BaseException:
            code = StatusCode.UNKNOWN
            raise

    return answer


def count_undecodable(
    method: MethodCounts, deserializer: Callable[[bytes], object]
) -> Callable[[bytes], object]:
    """Counts the calls whose request cannot be decoded, which grpcio ends before their handler."""

    def decode(data: bytes) -> object:
        try:
            return deserializer(data)
        except Exception:
            method.begin()
            method.end(StatusCode.INTERNAL)
            raise

    return decode


def final_code(context: grpc.ServicerContext, seconds: float, otherwise: StatusCode) -> StatusCode:
    """The code of a call whose handler ends now, `otherwise` if it has set none.

    Args:
        context: the call's.
        seconds: since it came in.
        otherwise: what it is without a code of its own.
    """
    if context.is_active():
        code = context.code()  # type: ignore[attr-defined]  # grpcio has it, its stubs do not
        return otherwise if code is None else known_code(code)
    # Whatever the handler says, grpcio tells nobody: the caller left, or its time is up.
    # A client whose time is up says that it leaves, and that may be here before the time is up here
    # too: timeouts travel rounded up, by a hundredth at most.
    late = context.time_remaining() < 0.05 + seconds / 100
    return StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED


def known_code(code: object) -> StatusCode:
    """What grpcio makes of a code that a handler has set."""
    return code if isinstance(code, StatusCode) else StatusCode.UNKNOWN
