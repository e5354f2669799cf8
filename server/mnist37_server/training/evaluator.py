"""Losses and accuracies, computed on the device while it trains."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mnist37.examples import Device, Examples
from mnist37.losses import Evaluation
from mnist37.training import Datasets, evaluate
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.training.device_errors import (
    device_lost_error,
    is_out_of_memory,
    out_of_memory_error,
)

log = logging.getLogger(__name__)


class Evaluator:
    """An evaluator of snapshots, on resident images or on a caller's batch.

    Any thread may use it.

    Args:
        datasets: returns the resident images.
        device: the device that has them.
        on_device_lost: called when an evaluation finds that the device is lost.
    """

    def __init__(
        self, datasets: Callable[[], Datasets], device: Device, on_device_lost: Callable[[], None]
    ) -> None:
        self.device = device
        self._datasets = datasets
        self._on_device_lost = on_device_lost

    def evaluate(self, snapshot: Snapshot, source: Split | Batch) -> Evaluation:
        """Return the loss and the accuracy of a snapshot.

        Args:
            snapshot: the version of the model.
            source: the images to evaluate it on: resident ones, or a caller's batch.

        Raises:
            Exhausted: the device is out of memory.
            ShuttingDown: the device is lost.
        """
        try:
            with self.device.side_stream():
                parameters = self.device.put(snapshot.parameters)
                return evaluate(parameters, self._examples(source))
        except Exception as error:
            if is_out_of_memory(error):
                log.warning("GetLoss failed", exc_info=error)
                batch = source if isinstance(source, Batch) else None
                raise out_of_memory_error(self.device, batch) from error
            if self.device.is_lost():
                self._on_device_lost()
                raise device_lost_error() from error
            raise

    def _examples(self, source: Split | Batch) -> Examples:
        if isinstance(source, Batch):
            return self.device.load_images(source.images, source.targets)
        datasets = self._datasets()
        return datasets.train if source is Split.TRAIN else datasets.valid
