"""The metrics endpoint for Prometheus: metrics of the RPCs, the model and the process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from threading import Thread
from typing import Protocol
from wsgiref.simple_server import WSGIServer

from google.protobuf.descriptor import FileDescriptor
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mnist37_server.domain.address import Address, join
from mnist37_server.domain.records import ModelStats
from mnist37_server.errors import CannotStart
from mnist37_server.observability.handshakes import FailedHandshakes
from mnist37_server.observability.histogram import Histogram
from mnist37_server.observability.rpc_metrics import RpcMetrics, buckets
from mnist37_server.rpc.handlers import Authorize
from mnist37_server.rpc.listening import find_port

# A connection to the endpoint is closed after this time without data, since it holds a thread.
SILENT_SCRAPER_SECONDS = 10.0

log = logging.getLogger(__name__)


class EventCounts(Protocol):
    """Counts and latest results of a model since the process started."""

    train_loss: float | None  # of the latest epoch or Step; None before the first
    valid_loss: float | None
    valid_accuracy: float | None
    runs_finished: int
    runs_interrupted: int
    commit_seconds: Histogram
    commits_failed: int


class ObservedModel(Protocol):
    """A model whose metrics can be collected."""

    @property
    def engine_stats(self) -> EventCounts:
        """Return what has happened to the model since the process started."""

    def model_stats(self) -> ModelStats:
        """Return the model's present state."""


class MetricsEndpoint:
    """An HTTP server for scrapes, with its own threads.

    Args:
        address: where to listen, with a host; port 0 picks a free one.
        contracts: the .proto files of the services whose RPCs are counted.
        authorize: returns the handler that refuses a call; None: all calls are allowed.

    Attributes:
        rpcs: the interceptor that counts the RPCs.
        url: the address of the metrics.

    Raises:
        CannotStart: the endpoint cannot listen on the address.
    """

    def __init__(
        self,
        address: Address,
        contracts: Iterable[FileDescriptor],
        authorize: Authorize | None = None,
    ) -> None:
        self.rpcs = RpcMetrics(contracts, authorize)
        self._registry = CollectorRegistry(auto_describe=True)
        self._registry.register(self.rpcs)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        hosts, port = find_port("--metrics-address", address)
        self._servers = [self._start(host, port) for host in hosts]
        self.url = f"http://{join(address.host, port)}/metrics"

    def observe(self, model: Collector) -> None:
        """Add the model's metrics to the scrapes from now on."""
        self._registry.register(model)

    def observe_tls(self, certificate_ends: float | None, failed: FailedHandshakes) -> None:
        """Add the metrics of TLS to the scrapes from now on.

        Args:
            certificate_ends: when the server's certificate expires, in seconds since 1970; None
                without TLS.
            failed: the handshakes that failed.
        """
        self._registry.register(TlsMetrics(certificate_ends, failed))

    def close(self) -> None:
        """Stop the endpoint; call it before the model is closed."""
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()

    def _start(self, host: str, port: int) -> tuple[WSGIServer, Thread]:
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise CannotStart(
                f"--metrics-address: cannot listen on {join(host, port)}: {error.strerror}"
            ) from error
        handler_class: type = server.RequestHandlerClass  # type: ignore[assignment]  # a class
        server.RequestHandlerClass = type(
            "Handler", (handler_class,), {"timeout": SILENT_SCRAPER_SECONDS}
        )
        # The default prints a stack trace when a client closes its connection early.
        server.handle_error = self._log_failure  # type: ignore[method-assign,assignment]
        return server, thread

    @staticmethod
    def _log_failure(*_: object) -> None:
        log.debug("a scrape failed", exc_info=True)


class ModelMetrics(Collector):
    """A collector of one live model's metrics, which are read at each scrape."""

    def __init__(self, model: ObservedModel) -> None:
        self._model = model

    def collect(self) -> Iterator[Metric]:
        """Yield the present metrics; a loss or accuracy without a value yet is left out."""
        model_stats, engine_stats = self._model.model_stats(), self._model.engine_stats
        yield gauge("model_version", "The newest committed version.", model_stats.version)
        loss = GaugeMetricFamily(
            "mnist37_loss", "The mean loss of the latest epoch or Step.", labels=["split"]
        )
        for split, value in (
            ("train", engine_stats.train_loss),
            ("valid", engine_stats.valid_loss),
        ):
            if value is not None:
                loss.add_metric([split], value)
        yield loss
        help_ = "The accuracy on the validation images after the latest epoch."
        yield gauge("accuracy", help_, engine_stats.valid_accuracy)
        yield counter("steps", "Steps of SGD done.", model_stats.steps)
        yield counter(
            "images_trained", "Images that the steps of SGD used.", model_stats.images_trained
        )
        yield counter("images_predicted", "Images predicted.", model_stats.images_predicted)
        yield gauge("queue_depth", "Writes that wait for their turn.", model_stats.pending_writes)
        yield gauge("runs_in_progress", "Training runs under way.", model_stats.runs_in_progress)
        runs = CounterMetricFamily("mnist37_runs", "Training runs that ended.", labels=["outcome"])
        runs.add_metric(["finished"], engine_stats.runs_finished)
        runs.add_metric(["interrupted"], engine_stats.runs_interrupted)
        yield runs
        commits = HistogramMetricFamily("mnist37_commit_seconds", "Seconds that commits took.")
        seconds = engine_stats.commit_seconds
        commits.add_metric([], buckets(seconds.cumulative()), seconds.sum)
        yield commits
        yield counter("commits_failed", "Commits that failed.", engine_stats.commits_failed)
        yield gauge(
            "state_bytes", "Bytes of the database, without its log.", model_stats.state_bytes
        )
        yield gauge("state_log_bytes", "Bytes of the database's log.", model_stats.state_log_bytes)
        yield from gauges_of_followers(model_stats.followers, model_stats.follower_lag_seconds)


class TlsMetrics(Collector):
    """A collector of the metrics of TLS."""

    def __init__(self, certificate_ends: float | None, failed: FailedHandshakes) -> None:
        self._certificate_ends = certificate_ends
        self._failed = failed

    def collect(self) -> Iterator[Metric]:
        """Yield the present metrics; without TLS, the certificate's has no value."""
        help_ = "When the server's certificate expires, in seconds since 1970."
        yield gauge("certificate_expiry_timestamp_seconds", help_, self._certificate_ends)
        yield counter("tls_handshakes_failed", "TLS handshakes that failed.", self._failed.count)


def gauges_of_followers(count: int, lag_seconds: float) -> Iterator[Metric]:
    """Yield the metrics of the followers of a server, an owner or a follower."""
    yield gauge("followers", "Followers that are connected.", count)
    help_ = "For how long the follower that is behind most has not been sent the newest version."
    yield gauge("follower_lag_seconds", help_, lag_seconds)


def gauge(name: str, help_: str, value: float | None) -> Metric:
    """Return a metric that can rise and fall; it has no sample while the value is None."""
    return GaugeMetricFamily(f"mnist37_{name}", help_, value)


def counter(name: str, help_: str, value: float) -> Metric:
    """Return a metric that counts since the server started; its name gets _total."""
    return CounterMetricFamily(f"mnist37_{name}", help_, value)
