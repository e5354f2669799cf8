"""Losses on the device, beside the training."""

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
    """Evaluates versions of the model on resident images or on a caller's.

    Args:
        datasets: the resident images.
        device: where they are.
        on_device_lost: is called where the device turns out to be lost.
    """

    def __init__(
        self, datasets: Datasets, device: Device, on_device_lost: Callable[[], None]
    ) -> None:
        self.device = device
        self._datasets = datasets
        self._on_device_lost = on_device_lost

    def evaluate(self, snapshot: Snapshot, on: Split | Batch) -> Evaluation:
        """Return the loss and the accuracy of a version.

        Raises:
            Exhausted: there is no room on the device.
            ShuttingDown: the device is lost.
        """
        try:
            with self.device.side_stream():
                parameters = self.device.put(snapshot.parameters)
                return evaluate(parameters, self._examples(on))
        except Exception as error:
            if is_out_of_memory(error):
                log.warning("GetLoss failed", exc_info=error)
                batch = on if isinstance(on, Batch) else None
                raise out_of_memory_error(self.device, batch) from error
            if self.device.is_lost():
                self._on_device_lost()
                raise device_lost_error() from error
            raise

    def _examples(self, on: Split | Batch) -> Examples:
        if isinstance(on, Batch):
            return self.device.load_images(on.images, on.targets)
        return self._datasets.train if on is Split.TRAIN else self._datasets.valid
