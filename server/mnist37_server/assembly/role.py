"""The role of a server, as the frame that serves it sees an owner or a follower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from mnist37_server.engine.read_model import ReadModel, WriteModel
from mnist37_server.services.health import Health

if TYPE_CHECKING:  # without metrics, prometheus-client is not loaded
    from prometheus_client.registry import Collector


class ServedModel(ReadModel, WriteModel, Protocol):
    """A model that the services can be given."""


class Role(Protocol):
    """An owner of a model, or a follower of one: what a server serves, and how that ends."""

    @property
    def model(self) -> ServedModel:
        """Return the model to serve."""

    @property
    def is_ready(self) -> bool:
        """Return whether the model can be read already; otherwise the role tells the health."""

    def describe(self) -> Mapping[str, object]:
        """Return the fields of the role for the log: where the model comes from, its version."""

    def summary(self) -> str:
        """Return the role in one line, for stdout."""

    def collector(self) -> Collector:
        """Return the collector of the model's metrics."""

    def begin(self, health: Health) -> None:
        """Begin the role's own work, and tell the health what it needs to know."""

    def stop(self) -> None:
        """End the role's own work; reads go on."""

    def close(self) -> None:
        """Close what the role has open; call `stop` first."""
