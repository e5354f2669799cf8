"""The RPCs, counted as go-grpc-middleware counts them, so that its dashboards and alerts fit.

An interceptor sees each call come in, asks the gate where there is one, and puts a handler in the
place of the method's own that notes its beginning and its end. What gRPC ends by itself before that
(one call too many, or one whose caller left while it waited for a thread) has come in, and is not
handled. A method's numbers are plain ones under a lock, turned into Prometheus' when it asks: that
is a third of what counters and a histogram of its library cost a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from time import perf_counter

import grpc
from google.protobuf.descriptor import FileDescriptor
from grpc import StatusCode
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mnist37_server.observability.rpc_counts import (
    CODES,
    MethodCounts,
    arrival_time,
    counting_handler,
)
from mnist37_server.rpc.handlers import Authorize, Continuation, Handler

LABELS = ["grpc_type", "grpc_service", "grpc_method"]
TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}  # by whether the requests and whether the responses are a stream


class RpcMetrics(grpc.ServerInterceptor, Collector):
    """Counts all calls that come in on a port.

    Args:
        contracts: the .proto files of its services. Calls of anything else are counted together,
            so that no caller can make up labels.
        authorize: is asked what answers a call that may not pass; None lets all pass. It is asked
            from here: grpcio's way on to another interceptor takes longer than the asking.
    """

    def __init__(
        self, contracts: Iterable[FileDescriptor], authorize: Authorize | None = None
    ) -> None:
        self._authorize = authorize
        self._unknown = MethodCounts("unknown", "unknown", "unknown")
        self._methods = {
            f"/{service.full_name}/{method.name}": MethodCounts(
                TYPES[method.client_streaming, method.server_streaming],
                service.full_name,
                method.name,
            )
            for contract in contracts
            for service in contract.services_by_name.values()
            for method in service.methods
        }

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Notes when the call came in, and has its end noted."""
        arrival_time.set(
            perf_counter()
        )  # in a context of the call's own, which the handler runs in too
        method = self._methods.get(handler_call_details.method, self._unknown)
        method.started += 1
        if self._authorize is not None:
            refusal = self._authorize(handler_call_details)
            if refusal is not None:
                return counting_handler(method, refusal)
        handler = method.handler
        if handler is None:
            handler = continuation(handler_call_details)
            if handler is None:
                method.begin()
                method.end(StatusCode.UNIMPLEMENTED)
                return None
            handler = counting_handler(method, handler)
            if method is not self._unknown:
                method.handler = handler
        return handler

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        started = CounterMetricFamily("grpc_server_started", "RPCs that came in.", labels=LABELS)
        progress = GaugeMetricFamily(
            "mnist37_rpcs_in_progress", "RPCs whose handler is at work.", labels=LABELS
        )
        handled = CounterMetricFamily(
            "grpc_server_handled", "RPCs completed, by their code.", labels=[*LABELS, "grpc_code"]
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds",
            "Seconds from an RPC's arrival to the end of its handler.",
            labels=LABELS,
        )
        for method in (*self._methods.values(), self._unknown):
            in_progress, codes, cumulative, total = method.read()
            started.add_metric(method.labels, method.started)
            progress.add_metric(method.labels, in_progress)
            # A scrape holds up whoever predicts, by 10 us a line: what was never called has few.
            for code in CODES if method.started else [StatusCode.OK]:
                handled.add_metric([*method.labels, CODES[code]], codes[code])
            if method.started:
                seconds.add_metric(method.labels, buckets(cumulative), total)
        yield from (started, progress, handled, seconds)


def buckets(cumulative: list[tuple[float, int]]) -> list[tuple[str, float]]:
    """A histogram's numbers as Prometheus' library takes them."""
    return [("+Inf" if bound == inf else str(float(bound)), count) for bound, count in cumulative]
