"""The metrics of a follower for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mnist37_server.domain.records import FollowerStats
from mnist37_server.observability.prometheus import counter, gauge, gauges_of_followers


class ObservedFollower(Protocol):
    """A follower whose metrics can be collected."""

    def follower_stats(self) -> FollowerStats:
        """Return the follower's present state."""


class FollowerMetrics(Collector):
    """A collector of one follower's metrics, which are read at each scrape."""

    def __init__(self, model: ObservedFollower) -> None:
        self._model = model

    def collect(self) -> Iterator[Metric]:
        """Yield the present metrics; version and age are left out before the first version."""
        stats = self._model.follower_stats()
        yield gauge("model_version", "The newest version that came.", stats.version)
        yield counter("images_predicted", "Images predicted.", stats.images_predicted)
        help_ = "Seconds since the follower held what the owner then said was its newest version."
        yield gauge("follower_age_seconds", help_, stats.age_seconds)
        help_ = "Times that all versions were dropped, for the owner had another history."
        yield counter("follower_resets", help_, stats.resets)
        yield gauge("follower_connected", "Whether the owner is heard.", stats.connected)
        yield from gauges_of_followers(stats.followers, stats.lag_seconds)
