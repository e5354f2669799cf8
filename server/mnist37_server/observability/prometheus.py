"""What Prometheus is told when it asks: of the RPCs, the model and the process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

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

from mnist37_server.domain.records import ModelStats
from mnist37_server.errors import CannotStart
from mnist37_server.observability.histogram import Histogram
from mnist37_server.observability.rpc_metrics import RpcMetrics, buckets
from mnist37_server.rpc.handlers import Authorize

SILENT_SCRAPER_SECONDS = 10.0  # seconds for which a connection may say nothing; each has a thread

log = logging.getLogger(__name__)


class EventCounts(Protocol):
    """What happened to a model since the process began, as far as metrics show it."""

    train_loss: float | None  # that an epoch or a Step last told; None before the first
    valid_loss: float | None
    valid_accuracy: float | None
    runs_finished: int
    runs_interrupted: int
    commit_seconds: Histogram
    commits_failed: int


class ObservedModel(Protocol):
    """A model whose figures are shown."""

    @property
    def engine_stats(self) -> EventCounts:
        """What happened to it."""

    def model_stats(self) -> ModelStats:
        """How it stands now."""


class MetricsEndpoint:
    """Answers scrapes over HTTP, in threads of its own.

    Args:
        address: HOST:PORT to listen on; port 0 picks a free one.
        contracts: the .proto files of the services whose calls `rpcs` will be told of.
        authorize: is asked what answers a call that may not pass; None lets all pass.

    Raises:
        CannotStart: the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        contracts: Iterable[FileDescriptor],
        authorize: Authorize | None = None,
    ) -> None:
        self.rpcs = RpcMetrics(contracts, authorize)
        self._registry = CollectorRegistry(auto_describe=True)
        self._registry.register(self.rpcs)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), self._registry
            )
        except OSError as error:
            raise CannotStart(
                f"--metrics-address: cannot listen on {address}: {error.strerror}; name another"
                " HOST:PORT, or port 0 for a free one"
            ) from error
        theirs: type = self._server.RequestHandlerClass  # type: ignore[assignment]  # a class
        self._server.RequestHandlerClass = type(
            "Handler", (theirs,), {"timeout": SILENT_SCRAPER_SECONDS}
        )
        # Its own way is to print a stack trace for whoever hangs up.
        self._server.handle_error = self._failed  # type: ignore[method-assign,assignment]
        self.url = f"http://{host}:{self._server.server_port}/metrics"

    def observe(self, model: ObservedModel) -> None:
        """From now on a scrape has the model's figures too."""
        self._registry.register(ModelMetrics(model))

    def close(self) -> None:
        """Answers no more; before the model is closed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @staticmethod
    def _failed(*_: object) -> None:
        log.debug("a scrape failed", exc_info=True)


class ModelMetrics(Collector):
    """One live model's figures, read from it when they are asked for."""

    def __init__(self, model: ObservedModel) -> None:
        self._model = model

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now; those that are not known yet are left out."""
        figures, journal = self._model.model_stats(), self._model.engine_stats
        yield gauge("model_version", "The newest committed version.", figures.version)
        loss = GaugeMetricFamily(
            "mnist37_loss", "The mean loss that an epoch or a Step last told.", labels=["split"]
        )
        for split, value in (("train", journal.train_loss), ("valid", journal.valid_loss)):
            if value is not None:
                loss.add_metric([split], value)
        yield loss
        help_ = "The accuracy on the validation images that an epoch last told."
        yield gauge("accuracy", help_, journal.valid_accuracy)
        yield counter("steps", "Steps of SGD done.", figures.steps)
        yield counter("images_trained", "Images that those were on.", figures.images_trained)
        yield counter("images_predicted", "Images predicted.", figures.images_predicted)
        yield gauge("queue_depth", "Writes that wait for their turn.", figures.pending_writes)
        yield gauge("runs_in_progress", "Training runs under way.", figures.runs_in_progress)
        runs = CounterMetricFamily("mnist37_runs", "Training runs that ended.", labels=["outcome"])
        runs.add_metric(["finished"], journal.runs_finished)
        runs.add_metric(["interrupted"], journal.runs_interrupted)
        yield runs
        commits = HistogramMetricFamily("mnist37_commit_seconds", "Seconds that commits took.")
        seconds = journal.commit_seconds
        commits.add_metric([], buckets(seconds.cumulative()), seconds.sum)
        yield commits
        yield counter("commits_failed", "Commits that failed.", journal.commits_failed)
        yield gauge("state_bytes", "Bytes of the database, without its log.", figures.state_bytes)


def gauge(name: str, help_: str, value: float | None) -> Metric:
    """A value that goes up and down; None while it is not known."""
    return GaugeMetricFamily(f"mnist37_{name}", help_, value)


def counter(name: str, help_: str, value: float) -> Metric:
    """A value since the server began; its name gets _total."""
    return CounterMetricFamily(f"mnist37_{name}", help_, value)
