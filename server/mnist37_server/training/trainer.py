"""The model being trained, on its device: what each of the writes does to it.

A trainer is ahead of what is committed, and belongs to the one thread that writes. Its `snapshot`
is what gets committed; `reset` takes it back to what was.
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

RESIDENT_ORDER = Train(epochs=1)  # whose seed and batch size order the Steps without a batch
# What a run does in one go, and what is then committed, published and told of together. Between two
# such parts everybody else waits a moment for the writer; so there are not many. But the first is
# an epoch, for whoever has just begun one wants to see it.
SLICE_SECONDS = 0.1
SLICE_GROWTH_MAX = 2  # so many times the part before, at the most


class Trainer:
    """The parameters on the device, and the resident images they are trained on."""

    def __init__(self, datasets: Datasets, device: Device) -> None:
        self.datasets = datasets
        self.device = device
        self.parameters = device.put(np.zeros(PARAMETERS, np.float32))
        self.version = 0
        self.steps_done = self.images_done = 0  # since the server began, committed or not
        self._batch_cursor = 0

    def snapshot(self, origin: Origin, run: int | None = None) -> Snapshot:
        """The model as it is now, and what made it so.

        Raises:
            InvalidArgument: an update's learning rate was so large that the parameters overflowed.
        """
        parameters = self.device.fetch(self.parameters)
        if not count_finite(parameters[None]):
            raise overflow_error()
        return self.snapshot_of(parameters, self.version, origin, run)

    def snapshot_of(
        self, parameters: NDArray[np.float32], version: int, origin: Origin, run: int | None
    ) -> Snapshot:
        """The model as it was with these parameters (785,), which did not overflow."""
        content = parameters.astype("<f4", copy=False).tobytes()
        return Snapshot(version, content, self._batch_cursor, origin, run)

    def reset(self, snapshot: Snapshot) -> None:
        """Makes the model what it was at a snapshot, as if nothing had been done since."""
        self.device.assign(self.parameters, snapshot.parameters)
        self.version, self._batch_cursor = snapshot.version, snapshot.batch_cursor

    def load_parameters(self, parameters: NDArray[np.float32]) -> None:
        """Makes parameters (785,) from elsewhere the model's, as an update."""
        self.device.assign(self.parameters, parameters)
        self.version += 1

    def initialize(self, request: Initialize) -> None:
        """Draws fresh parameters, on the CPU whatever the device, as the notes do."""
        self.device.assign(self.parameters, draw_parameters(request.seed, request.std))
        self.version += 1

    def step_on(self, batch: Batch, sgd: Sgd) -> float:
        """One step of SGD on a batch of the caller's; returns the mean loss from before it."""
        examples = self.device.load_images(batch.images, batch.targets)
        order, count = np.zeros(1, np.int64), len(examples)
        total = examples.sgd(self.parameters, order, count, sgd)
        self.steps_done += 1
        self.images_done += count
        self.version += 1
        return mean_loss(total, count)

    def step_through(self, settings: Sequence[Sgd]) -> list[tuple[float, Snapshot]]:
        """Steps of SGD on the training set's next mini-batches, in one go.

        Returns:
            The mean loss from before each, and the model after it. There are fewer than asked for
            if the next one made the parameters overflow; then the model is to be `reset`.
        """
        walk = self.datasets.mini_batches(RESIDENT_ORDER.seed, RESIDENT_ORDER.batch_size)
        places = [(self._batch_cursor + i) % len(walk) for i in range(len(settings))]
        order = np.array(places, np.int64)
        totals, states = walk.steps(self.parameters, order, settings, ABSOLUTE_SUM_MAX)
        done = []
        # In Python's own numbers. What numpy needs for as much is no longer in the processor's
        # caches by now, and to fetch it takes as long as half a step.
        for checkpoint, total, parameters in zip(places, totals.tolist(), states, strict=False):
            count = walk.count(checkpoint)
            self.version += 1
            self._batch_cursor = (checkpoint + 1) % len(walk)
            snapshot = self.snapshot_of(parameters, self.version, Origin.STEP, None)
            done.append((mean_loss(total, count), snapshot))
            self.images_done += count
        self.steps_done += len(done)
        return done

    def run(self, request: Train, checkpoint: RunCheckpoint) -> Run:
        """A run over the training set, from where it is."""
        return Run(self, request, checkpoint)


def count_finite(states: NDArray[np.float32]) -> int:
    """How many parameters (N, 785) there are before the first that overflowed."""
    fine = absolute_sums(states) <= ABSOLUTE_SUM_MAX  # false for NaN too
    return len(fine) if fine.all() else int(fine.argmin())


def overflow_error() -> InvalidArgument:
    """Why an update is refused that the parameters did not survive."""
    return InvalidArgument(
        "learning_rate",
        "this one drives the model beyond what float32 can hold",
        "choose a smaller one",
    )


class SliceResult(NamedTuple):
    """What came of a part of a run: the epochs that ended in it."""

    progress: list[Progress]
    # After each; and, where the part ended in the midst of another, as the model was then. So the
    # last one is where the run is.
    snapshots: list[Snapshot]


class Run:
    """A Train under way; iterate over `parts` to go on with it."""

    def __init__(self, trainer: Trainer, request: Train, checkpoint: RunCheckpoint) -> None:
        self.stop: Flag = np.zeros(1, np.uint8)  # any thread may set it: no further step, for now
        self._trainer = trainer
        self._request = request
        self._batches = trainer.datasets.mini_batches(request.seed, request.batch_size)
        self._began = time.monotonic() - checkpoint.elapsed
        self._checkpoint = checkpoint

    @property
    def checkpoint(self) -> RunCheckpoint:
        """How far the run is; to go on from there later."""
        return self._checkpoint._replace(elapsed=time.monotonic() - self._began)

    def slices(self) -> Iterator[SliceResult]:
        """Does a part of the run at a time; gives the epochs that ended with it.

        A part may hold many epochs. It ends with one, unless `stop` is set or an epoch takes long.

        Raises:
            InvalidArgument: as Trainer.snapshot; what came before it was given.
        """
        most = len(self._batches)
        steps_in_all = self._request.epochs * len(self._batches)
        while self._checkpoint.steps < steps_in_all:
            part = self._next_slice(most)
            began = time.monotonic()
            done = self._batches.examples.train(
                self._trainer.parameters, part, self._trainer.datasets.valid
            )
            took = max(time.monotonic() - began, 1e-9)
            if done.steps:
                most = max(1, min(SLICE_GROWTH_MAX * most, int(done.steps * SLICE_SECONDS / took)))
            yield from self._take_in(part, done, began - self._began, took)

    def _next_slice(self, most: int) -> TrainingSlice:
        """The next steps, up to the end of an epoch if that is not farther."""
        an_epoch = len(self._batches)
        epochs, start = divmod(self._checkpoint.steps, an_epoch)
        if start + most >= an_epoch:
            most -= (start + most) % an_epoch
        last = min(epochs + math.ceil((start + most) / an_epoch), self._request.epochs)
        return TrainingSlice(
            orders=self._batches.orders(range(epochs + 1, last + 1)),
            first_step=start,
            loss=self._checkpoint.loss,
            max_steps=most,
            batch_size=self._request.batch_size,
            sgd=self._request.sgd,
            stop=self.stop,
        )

    def _take_in(
        self, part: TrainingSlice, done: SliceOutput, began: float, took: float
    ) -> Iterator[SliceResult]:
        """Takes in what was done, in `took` seconds, from `began` in the run's own time on.

        By columns, since predictions wait for it, and a part has some 70 epochs.
        """
        trainer, an_epoch = self._trainer, len(self._batches)
        states, within = done.parameters, (part.first_step + done.steps) % an_epoch
        if within:
            states = np.vstack([states, trainer.device.fetch(trainer.parameters)])
        good = count_finite(states)
        ended = np.arange(1, 1 + min(good, len(done.totals)))
        totals, steps = done.totals[: len(ended)], ended * an_epoch - part.first_step
        versions = (steps + trainer.version).tolist()
        columns = (
            (ended + self._checkpoint.steps // an_epoch).tolist(),
            [self._request.epochs] * len(ended),
            mean_losses(totals[:, 0], len(trainer.datasets.train)).tolist(),
            mean_losses(totals[:, 1], len(trainer.datasets.valid)).tolist(),
            (totals[:, 2] / len(trainer.datasets.valid)).tolist(),
            versions,
            (steps / max(1, done.steps) * took + began).tolist(),
        )
        progress = list(map(Progress, *columns))
        snapshots = [
            trainer.snapshot_of(parameters, version, Origin.TRAIN, self._checkpoint.run)
            for parameters, version in zip(
                states[:good], [*versions, trainer.version + done.steps], strict=False
            )
        ]
        if good == len(states):
            self._count(part, done.steps, done.loss)
        else:  # as far as the last epoch that is fine; without one, nothing here is committed
            self._count(part, int(steps[-1]) if good else 0, 0)
        yield SliceResult(progress, snapshots)
        if good < len(states):
            raise overflow_error()

    def _count(self, part: TrainingSlice, steps: int, loss: int) -> None:
        taken = part.orders.ravel()[part.first_step :][:steps]
        self._trainer.version += steps
        self._trainer.steps_done += steps
        self._trainer.images_done += int(self._batches.counts(taken).sum())
        self._checkpoint = self._checkpoint._replace(
            steps=self._checkpoint.steps + steps, loss=loss
        )
