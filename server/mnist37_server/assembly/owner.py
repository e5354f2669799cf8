"""The owner of a model: it has the state, trains the model, and answers from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mnist37 import data
from mnist37_server.config import Config
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.errors import CannotStart
from mnist37_server.services.health import Health
from mnist37_server.storage.store import Store
from mnist37_server.training.device import INSTALL_TORCH, place_images

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


class Owner:
    """The role of a server that owns its model.

    Args:
        config: the settings.
        open_store: opens the store in the state folder; None is in memory.

    Raises:
        CannotStart: the state, the device or the images cannot be used.
    """

    is_ready = True

    def __init__(self, config: Config, open_store: Callable[[Path | None], Store] | None) -> None:
        self._state = str(config.state or "memory")
        store = (open_store or Store)(config.state)
        # After the store, whose lock excludes a second server: it must not use the device of the
        # first.
        datasets, device = place_images(config.device, load_images(config))
        self.model = LiveModel(
            datasets, device, store, config.max_pending_writes, config.max_followers
        )

    def describe(self) -> Mapping[str, object]:
        """Return the folder of the state, and the version of the model."""
        return {"state": self._state, "version": self.model.feed.newest.version}

    def summary(self) -> str:
        """Return the version of the model, and its device."""
        return f"version {self.model.feed.newest.version} on {self.model.device}"

    def collector(self) -> Collector:
        """Return the collector of the model's metrics."""
        from mnist37_server.observability.prometheus import ModelMetrics

        return ModelMetrics(self.model)

    def begin(self, health: Health) -> None:
        """Have the health tell when no more writes are taken, so that a supervisor restarts us."""
        self.model.on_writes_lost = health.begin_shutdown

    def stop(self) -> None:
        """Stop a run under way after its current step, commit it, and refuse further writes."""
        self.model.stop_writing()

    def close(self) -> None:
        """Close the store."""
        self.model.close()


def load_images(config: Config) -> data.Data:
    """Return the training and the validation images.

    Raises:
        CannotStart: --data-root contains no MNIST, or torchvision is not installed.
    """
    try:
        return data.load(config.data_root, download=config.download)
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"--data-root: needs torchvision, which is not installed: {INSTALL_TORCH}"
        ) from error
    except (RuntimeError, OSError) as error:
        raise CannotStart(f"--data-root: no MNIST in {config.data_root}: {error}") from error
