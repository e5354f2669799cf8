"""Losses on the device, beside the training."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mnist37.examples import Device, Examples
from mnist37.losses import Evaluation
from mnist37.training import Sets, evaluate
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.training.device_errors import device_full, device_lost, no_room

log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates versions of the model on resident images or on a caller's.

    Args:
        sets: the resident images.
        device: where they are.
        lose: is called where the device turns out to be lost.
    """

    def __init__(self, sets: Sets, device: Device, lose: Callable[[], None]) -> None:
        self.device = device
        self._sets = sets
        self._lose = lose

    def evaluate(self, snapshot: Snapshot, on: Split | Batch) -> Evaluation:
        """Return the loss and the accuracy of a version.

        Raises:
            Exhausted: there is no room on the device.
            ShuttingDown: the device is lost.
        """
        try:
            with self.device.beside():
                parameters = self.device.put(snapshot.parameters)
                return evaluate(parameters, self._examples(on))
        except Exception as error:
            if no_room(error):
                log.warning("GetLoss failed", exc_info=error)
                batch = on if isinstance(on, Batch) else None
                raise device_full(self.device, batch) from error
            if self.device.is_lost():
                self._lose()
                raise device_lost() from error
            raise

    def _examples(self, on: Split | Batch) -> Examples:
        if isinstance(on, Batch):
            return self.device.place(on.images, on.targets)
        return self._sets.train if on is Split.TRAIN else self._sets.valid
