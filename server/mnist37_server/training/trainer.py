"""The trainer: the model's parameters on the device, and the arithmetic of each kind of write.

Only the writer's thread uses a trainer. It may be ahead of the committed version: `snapshot` gives
the version to commit, and `reset` goes back to a committed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist37.draw import draw_parameters
from mnist37.examples import PARAMETERS, Device, SliceOutput, TrainingSlice
from mnist37.kernels import Flag
from mnist37.losses import mean_loss, mean_losses
from mnist37.optimizer import Sgd
from mnist37.training import Datasets
from mnist37_server.domain.commands import Initialize, Train
from mnist37_server.domain.examples import Batch
from mnist37_server.domain.parameters import ABSOLUTE_SUM_MAX, absolute_sums
from mnist37_server.domain.records import RunCheckpoint
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import InvalidArgument

# Steps without a batch take the mini-batches in the order of this seed and batch size.
RESIDENT_ORDER = Train(epochs=1)
# How long one slice of a run takes. Its epochs are computed by one kernel, and then committed,
# published and sent together. Between two slices the writer holds the interpreter's lock, and
# readers wait; so there are few slices. The first slice is one epoch, so that the caller soon sees
# a result.
SLICE_SECONDS = 0.1
SLICE_GROWTH_MAX = 2  # a slice has at most so many times the steps of the slice before


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

    def run(self, request: Train, checkpoint: RunCheckpoint) -> Run:
        """Return a run over the training set that starts at a checkpoint."""
        return Run(self, request, checkpoint)


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


class SliceResult(NamedTuple):
    """The result of one slice of a run."""

    progress: list[Progress]  # one for each epoch that ended in the slice
    # One for each of these epochs. If the slice ended within an epoch, one more for its end. So the
    # last snapshot is always the model at the run's checkpoint.
    snapshots: list[Snapshot]


class Run:
    """A run under way, which advances as the caller iterates over `slices`.

    Args:
        trainer: has the parameters, which the run changes.
        request: the settings of the run.
        checkpoint: where the run starts.
    """

    def __init__(self, trainer: Trainer, request: Train, checkpoint: RunCheckpoint) -> None:
        # Any thread may set or clear it. While it is set, the kernel takes no further step.
        self.stop: Flag = np.zeros(1, np.uint8)
        self._trainer = trainer
        self._request = request
        self._batches = trainer.datasets.mini_batches(request.seed, request.batch_size)
        # On time.monotonic's clock, as if the run had never been interrupted.
        self._start_time = time.monotonic() - checkpoint.elapsed
        self._checkpoint = checkpoint

    @property
    def checkpoint(self) -> RunCheckpoint:
        """Return the checkpoint after the last slice, from which the run can go on later."""
        return self._checkpoint._replace(elapsed=time.monotonic() - self._start_time)

    def slices(self) -> Iterator[SliceResult]:
        """Compute the rest of the run, slice by slice, and yield the result of each.

        A slice may have many epochs. It ends at the end of an epoch, unless `stop` is set or one
        epoch takes longer than a slice.

        Raises:
            InvalidArgument: the parameters overflowed; the epochs before that were yielded.
        """
        max_steps = len(self._batches)
        total_steps = self._request.epochs * len(self._batches)
        while self._checkpoint.steps < total_steps:
            training_slice = self._next_slice(max_steps)
            start_time = time.monotonic()
            output = self._batches.examples.train(
                self._trainer.parameters, training_slice, self._trainer.datasets.valid
            )
            seconds = max(time.monotonic() - start_time, 1e-9)
            if output.steps:
                target_steps = int(output.steps * SLICE_SECONDS / seconds)
                max_steps = max(1, min(SLICE_GROWTH_MAX * max_steps, target_steps))
            yield from self._apply_output(
                training_slice, output, start_time - self._start_time, seconds
            )

    def _next_slice(self, max_steps: int) -> TrainingSlice:
        """Return the next slice: at most `max_steps`, cut at the last end of an epoch in them."""
        epoch_steps = len(self._batches)
        epochs, first_step = divmod(self._checkpoint.steps, epoch_steps)
        if first_step + max_steps >= epoch_steps:
            max_steps -= (first_step + max_steps) % epoch_steps
        last = min(epochs + math.ceil((first_step + max_steps) / epoch_steps), self._request.epochs)
        return TrainingSlice(
            orders=self._batches.orders(range(epochs + 1, last + 1)),
            first_step=first_step,
            loss=self._checkpoint.loss,
            max_steps=max_steps,
            batch_size=self._request.batch_size,
            sgd=self._request.sgd,
            stop=self.stop,
        )

    def _apply_output(
        self,
        training_slice: TrainingSlice,
        output: SliceOutput,
        start_seconds: float,
        seconds: float,
    ) -> Iterator[SliceResult]:
        """Advance the run by the output of one slice, and yield the slice's result.

        The results are computed by columns and not epoch by epoch: a slice has some 70 epochs, and
        predictions wait for this code.

        Args:
            training_slice: the slice that was computed.
            output: the kernel's output.
            start_seconds: when the slice started, in seconds since the start of the run.
            seconds: how long the slice took.

        Raises:
            InvalidArgument: the parameters overflowed; raised after the result is yielded.
        """
        trainer, epoch_steps = self._trainer, len(self._batches)
        rows = output.parameters
        if (training_slice.first_step + output.steps) % epoch_steps:  # within an epoch
            rows = np.vstack([rows, trainer.device.fetch(trainer.parameters)])
        finite_count = count_finite(rows)
        # The epochs that ended, numbered within the slice from 1 on.
        epochs = np.arange(1, 1 + min(finite_count, len(output.totals)))
        totals = output.totals[: len(epochs)]
        steps = epochs * epoch_steps - training_slice.first_step  # from the slice's start
        versions = (steps + trainer.version).tolist()
        columns = (
            (epochs + self._checkpoint.steps // epoch_steps).tolist(),
            [self._request.epochs] * len(epochs),
            mean_losses(totals[:, 0], len(trainer.datasets.train)).tolist(),
            mean_losses(totals[:, 1], len(trainer.datasets.valid)).tolist(),
            (totals[:, 2] / len(trainer.datasets.valid)).tolist(),
            versions,
            (steps / max(1, output.steps) * seconds + start_seconds).tolist(),
        )
        progress = list(map(Progress, *columns))
        snapshots = [
            trainer.snapshot_of(parameters, version, Origin.TRAIN, self._checkpoint.run)
            for parameters, version in zip(
                rows[:finite_count], [*versions, trainer.version + output.steps], strict=False
            )
        ]
        if finite_count == len(rows):
            self._advance(training_slice, output.steps, output.loss)
        else:  # to the last finite epoch; if there is none, nothing of this slice is committed
            self._advance(training_slice, int(steps[-1]) if finite_count else 0, 0)
        yield SliceResult(progress, snapshots)
        if finite_count < len(rows):
            raise overflow_error()

    def _advance(self, training_slice: TrainingSlice, steps: int, loss: int) -> None:
        """Add the first `steps` of a slice to the checkpoint and to the trainer's counts.

        `loss` is the sum over the images of the unfinished epoch, in LOSS_UNITs.
        """
        indices = training_slice.orders.ravel()[training_slice.first_step :][:steps]
        self._trainer.version += steps
        self._trainer.steps_done += steps
        self._trainer.images_done += int(self._batches.counts(indices).sum())
        self._checkpoint = self._checkpoint._replace(
            steps=self._checkpoint.steps + steps, loss=loss
        )
