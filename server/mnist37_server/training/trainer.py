"""The trainer: the model's parameters on the device, and the arithmetic of each kind of write.

Only the writer's thread uses a trainer. It may be ahead of the committed version: `snapshot` gives
the version to commit, and `reset` goes back to a committed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnist37.draw import draw_parameters
from mnist37.examples import PARAMETERS, Device
from mnist37.losses import mean_loss
from mnist37.optimizer import Sgd
from mnist37.training import Datasets
from mnist37_server.domain.commands.commands import Initialize
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.examples import Batch
from mnist37_server.domain.parameters import ABSOLUTE_SUM_MAX, absolute_sums
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import InvalidArgument

# Steps without a batch take the mini-batches in the order of this seed and batch size.
RESIDENT_ORDER = Train(epochs=1)


class Trainer:
    """The parameters on the device, and the resident images that they are trained on.

    One thread uses it, the writer's. Other threads may read `steps_done` and `images_done`.

    Args:
        datasets: the resident images.
        device: the device that has them.
    """

    def __init__(self, datasets: Datasets, device: Device) -> None:
        self.datasets = datasets
        self.device = device
        self.parameters = device.put(np.zeros(PARAMETERS, np.float32))
        self.version = 0
        self.steps_done = self.images_done = 0  # since the server started, committed or not
        self._batch_cursor = 0

    def snapshot(self, origin: Origin, run: int | None = None) -> Snapshot:
        """Return a snapshot of the current parameters.

        Args:
            origin: the kind of write that made them.
            run: the number of the run, for Origin.TRAIN.

        Raises:
            InvalidArgument: the learning rate was so large that the parameters overflowed.
        """
        parameters = self.device.fetch(self.parameters)
        if not count_finite(parameters[None]):
            raise overflow_error()
        return self.snapshot_of(parameters, self.version, origin, run)

    def snapshot_of(
        self, parameters: NDArray[np.float32], version: int, origin: Origin, run: int | None
    ) -> Snapshot:
        """Return a snapshot of these parameters (785,), without a check for overflow."""
        content = parameters.astype("<f4", copy=False).tobytes()
        return Snapshot(version, content, self._batch_cursor, origin, run)

    def reset(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot: its parameters, its version and its batch cursor."""
        self.device.assign(self.parameters, snapshot.parameters)
        self.version, self._batch_cursor = snapshot.version, snapshot.batch_cursor

    def load_parameters(self, parameters: NDArray[np.float32]) -> None:
        """Replace the parameters by these (785,), as one update."""
        self.device.assign(self.parameters, parameters)
        self.version += 1

    def initialize(self, request: Initialize) -> None:
        """Replace the parameters by random ones; they are drawn on the CPU for every device."""
        self.device.assign(self.parameters, draw_parameters(request.seed, request.std))
        self.version += 1

    def step_on(self, batch: Batch, sgd: Sgd) -> float:
        """Take one step of SGD on a caller's batch; return the mean loss before the step."""
        examples = self.device.load_images(batch.images, batch.targets)
        order, count = np.zeros(1, np.int64), len(examples)
        total = examples.sgd(self.parameters, order, count, sgd)
        self.steps_done += 1
        self.images_done += count
        self.version += 1
        return mean_loss(total, count)

    def step_through(self, settings: Sequence[Sgd]) -> list[tuple[float, Snapshot]]:
        """Take steps of SGD on the training set's next mini-batches, all in one kernel.

        Args:
            settings: the settings of each step.

        Returns:
            For each step, the mean loss before it and the snapshot after it. The list ends before
            the first step that made the parameters overflow; if it is shorter than `settings`, the
            caller must `reset` the trainer.
        """
        batches = self.datasets.mini_batches(RESIDENT_ORDER.seed, RESIDENT_ORDER.batch_size)
        indices = [(self._batch_cursor + i) % len(batches) for i in range(len(settings))]
        order = np.array(indices, np.int64)
        totals, rows = batches.steps(self.parameters, order, settings, ABSOLUTE_SUM_MAX)
        results = []
        # This loop uses Python's numbers and not numpy's. After the kernel, numpy's code is no
        # longer in the processor's caches, and to load it again takes as long as half a step.
        for index, total, parameters in zip(indices, totals.tolist(), rows, strict=False):
            count = batches.count(index)
            self.version += 1
            self._batch_cursor = (index + 1) % len(batches)
            snapshot = self.snapshot_of(parameters, self.version, Origin.STEP, None)
            results.append((mean_loss(total, count), snapshot))
            self.images_done += count
        self.steps_done += len(results)
        return results


def count_finite(rows: NDArray[np.float32]) -> int:
    """Return how many of the parameter rows (N, 785) come before the first one that overflowed."""
    is_finite = absolute_sums(rows) <= ABSOLUTE_SUM_MAX  # false for NaN too
    return len(is_finite) if is_finite.all() else int(is_finite.argmin())


def overflow_error() -> InvalidArgument:
    """Return the refusal of an update that makes the parameters overflow."""
    return InvalidArgument(
        "learning_rate",
        "this one drives the model beyond what float32 can hold",
        "choose a smaller one",
    )
