"""A run of SGD over the training set, slice by slice, from a checkpoint to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from mnist37.examples import SliceOutput, TrainingSlice
from mnist37.kernels import Flag
from mnist37.losses import mean_losses
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.early_stopping import BestEpoch, apply_patience
from mnist37_server.domain.records import RunCheckpoint
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.training.trainer import Trainer, count_finite, overflow_error

# How long one slice of a run takes. Its epochs are computed by one kernel, and then committed,
# published and sent together. Between two slices the writer holds the interpreter's lock, and
# readers wait; so there are few slices. The first slice is one epoch, so that the caller soon sees
# a result.
SLICE_SECONDS = 0.1
SLICE_GROWTH_MAX = 2  # a slice has at most so many times the steps of the slice before


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
        self._is_over = False  # whether its last epoch, or its patience, has ended

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
        while not self._is_over:
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
            rates=self._request.rates(range(epochs + 1, last + 1)),
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
        output, stops_early = self._apply_patience(training_slice, output)
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
            [self._checkpoint.run] * len(epochs),
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
        self._update_best(progress)
        if progress and finite_count == len(rows):
            self._end_if_last(progress, stops_early)
        yield SliceResult(progress, snapshots)
        if finite_count < len(rows):
            raise overflow_error()

    def _apply_patience(
        self, training_slice: TrainingSlice, output: SliceOutput
    ) -> tuple[SliceOutput, bool]:
        """Return a slice's output without the epochs after the end of the patience, if it ends.

        The second value is whether it ends. Then the model goes back to the last epoch that counts:
        the kernel had computed on.
        """
        stopping = self._request.early_stopping
        if stopping is None:
            return output, False
        epoch_steps = len(self._batches)
        # Without epochs whose parameters overflowed: they end the run with an error.
        totals = output.totals[: count_finite(output.parameters), 1]
        losses = mean_losses(totals, len(self._trainer.datasets.valid)).tolist()
        first_epoch = self._checkpoint.steps // epoch_steps + 1
        baseline, index = apply_patience(stopping, self._checkpoint.baseline, first_epoch, losses)
        self._checkpoint = self._checkpoint._replace(baseline=baseline)
        if index is None:
            return output, False
        self._trainer.device.assign(self._trainer.parameters, output.parameters[index])
        steps = (index + 1) * epoch_steps - training_slice.first_step
        return output.truncated(steps, 0, index + 1), True

    def _update_best(self, progress: list[Progress]) -> None:
        """Update the best epoch of the checkpoint with the epochs of a slice."""
        best = self._checkpoint.best
        lowest = min(progress, key=attrgetter("valid_loss"), default=None)  # the first of several
        if lowest and (best is None or lowest.valid_loss < best.valid_loss):
            best = BestEpoch(lowest.epoch, lowest.valid_loss, lowest.version)
            self._checkpoint = self._checkpoint._replace(best=best)

    def _end_if_last(self, progress: list[Progress], stops_early: bool) -> None:
        """End the run if its last epoch, or its patience, ended with the slice."""
        best, last = self._checkpoint.best, progress[-1]
        if best is not None and (stops_early or last.epoch == last.epochs):
            self._is_over = True
            is_early = last.epoch < last.epochs
            progress[-1] = last._replace(best_epoch=best.epoch, stopped_early=is_early)

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
