"""The model being trained, on its device: what each of the writes does to it.

A trainer is ahead of what is committed, and belongs to the one thread that writes. Its `snapshot`
is what gets committed; `reset` takes it back to what was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mnist37.losses import Evaluation, mean_loss
from mnist37.model import init_params
from mnist37.training import PARAMETERS, Sets, evaluate, examples_on
from mnist37_server.errors import InvalidArgument
from mnist37_server.requests import (
    MOST_INK,
    Initialize,
    Progress,
    Step,
    Train,
    magnitude,
)
from mnist37_server.snapshot import Origin, Snapshot
from mnist37_server.state import RunPlace

WALK = Train(epochs=1)  # whose seed and batch size order the Steps without a batch
# So much of a run is done in one go; then its caller may stop it.
STEPS_AT_A_TIME = 1_024  # of an epoch
SECONDS_AT_A_TIME = 0.008  # of whole epochs, where each has fewer steps; about
EPOCHS_AT_A_TIME = 8  # at the most, so that it is soon done, too, to tell of them


class Trainer:
    """The parameters on the device, and the resident images they are trained on."""

    def __init__(self, sets: Sets, device: torch.device) -> None:
        self.sets = sets
        self.device = device
        self.parameters = torch.zeros(PARAMETERS, device=device)
        self.version = 0
        self.steps_done = self.images_done = 0  # since the server began, committed or not
        self._place = 0

    def snapshot(self, origin: Origin, run: int | None = None) -> Snapshot:
        """The model as it is now, and what made it so.

        Raises:
            InvalidArgument: an update's learning rate was so large that the parameters overflowed.
        """
        return self.snapshot_of(self.parameters.cpu().numpy(), self.version, origin, run)

    def snapshot_of(
        self, parameters: NDArray[np.float32], version: int, origin: Origin, run: int | None
    ) -> Snapshot:
        """The model as it was with these parameters (785,); raises as `snapshot`."""
        if not magnitude(parameters) <= MOST_INK:  # true for NaN too
            raise InvalidArgument(
                "learning_rate",
                "this one drives the model beyond what float32 can hold",
                "choose a smaller one",
            )
        content = parameters.astype("<f4", copy=False).tobytes()
        return Snapshot(version, content, self._place, origin, run)

    def reset(self, snapshot: Snapshot) -> None:
        """Makes the model what it was at a snapshot, as if nothing had been done since."""
        self.parameters.copy_(torch.tensor(snapshot.parameters))
        self.version, self._place = snapshot.version, snapshot.place

    def adopt(self, parameters: NDArray[np.float32]) -> None:
        """Makes parameters (785,) from elsewhere the model's, as an update."""
        self.parameters.copy_(torch.tensor(parameters))
        self.version += 1

    def initialize(self, request: Initialize) -> None:
        """Draws fresh parameters, on the CPU whatever the device, as the notes do."""
        generator = torch.Generator().manual_seed(request.seed)
        weights = init_params((784, 1), request.std, generator)
        bias = init_params(1, request.std, generator)
        self.parameters.copy_(torch.cat([weights.detach().view(-1), bias.detach()]))
        self.version += 1

    def step(self, request: Step) -> float:
        """One step of SGD; returns the mean loss from before it."""
        if request.batch is None:
            walk = self.sets.mini_batches(WALK.seed, WALK.batch_size)
            order, count = np.array([self._place]), walk.count(self._place)
            total = walk.sgd(self.parameters, order, request.learning_rate)
            self._place = (self._place + 1) % len(walk)
        else:
            examples = examples_on(self.device, request.batch.images, request.batch.targets)
            order, count = np.zeros(1, np.int64), len(examples)
            total = examples.sgd(self.parameters, order, count, request.learning_rate)
        self.steps_done += 1
        self.images_done += count
        self.version += 1
        return mean_loss(total, count)

    def run(self, request: Train, place: RunPlace) -> Run:
        """A run over the training set, from where it is."""
        return Run(self, request, place)


class EndOfEpoch(NamedTuple):
    """An epoch that a run has done, and what the model was then."""

    progress: Progress
    snapshot: Snapshot


class Run:
    """A Train under way; iterate over `parts` to go on with it."""

    def __init__(self, trainer: Trainer, request: Train, place: RunPlace) -> None:
        self._trainer = trainer
        self._request = request
        self._batches = trainer.sets.mini_batches(request.seed, request.batch_size)
        self._began = time.monotonic() - place.elapsed
        self._place = place
        self._epoch_took: float | None = None  # seconds, as the last steps were

    def parts(self) -> Iterator[Sequence[EndOfEpoch]]:
        """Does some steps of SGD at a time; gives the epochs that ended with them.

        Raises:
            InvalidArgument: as Trainer.snapshot; what came before it was given.
        """
        ended, steps_done = divmod(self._place.steps, len(self._batches))
        while ended < self._request.epochs:
            some = 1 if steps_done else min(self._at_a_time(), self._request.epochs - ended)
            if some > 1:
                yield from self._epochs(range(ended + 1, ended + some + 1))
            else:
                yield from self._steps(ended + 1, steps_done)
            ended, steps_done = ended + some, 0

    def _at_a_time(self) -> int:
        """How many epochs to do in one go."""
        if self._epoch_took is None or len(self._batches) > STEPS_AT_A_TIME:
            return 1
        return max(1, min(EPOCHS_AT_A_TIME, int(SECONDS_AT_A_TIME / self._epoch_took)))

    @property
    def place(self) -> RunPlace:
        """How far the run is; to go on from there later."""
        return self._place._replace(elapsed=time.monotonic() - self._began)

    def _steps(self, epoch: int, steps_done: int) -> Iterator[Sequence[EndOfEpoch]]:
        """The rest of an epoch, some steps at a time."""
        trainer, batches = self._trainer, self._batches
        order = batches.order(epoch)
        last = len(batches) - 1
        short = batches.batch_size - batches.count(last)  # images that the last one has fewer
        for first in range(steps_done, len(order), STEPS_AT_A_TIME):
            part = order[first : first + STEPS_AT_A_TIME]
            began = time.monotonic()
            loss = batches.sgd(trainer.parameters, part, self._request.learning_rate)
            self._epoch_took = (time.monotonic() - began) / len(part) * len(order)
            self._count(len(part), len(part) * batches.batch_size - short * int(last in part))
            self._place = self._place._replace(loss=self._place.loss + loss)
            if first + len(part) < len(order):
                yield []
        valid = evaluate(trainer.parameters, trainer.sets.valid)
        progress = self._progress(epoch, self._place.loss, valid, trainer.version, time.monotonic())
        self._place = self._place._replace(loss=0)
        yield [EndOfEpoch(progress, trainer.snapshot(Origin.TRAIN, self._place.run))]

    def _epochs(self, numbers: range) -> Iterator[Sequence[EndOfEpoch]]:
        """Whole epochs."""
        trainer, batches = self._trainer, self._batches
        before, began = trainer.version, time.monotonic()
        found = batches.epochs(
            trainer.parameters, numbers, self._request.learning_rate, trainer.sets.valid
        )
        self._epoch_took = each = (time.monotonic() - began) / len(numbers)
        ends: list[EndOfEpoch] = []
        overflow = None
        for i, (loss, valid_loss, correct) in enumerate(found.totals.tolist()):
            version = before + (i + 1) * len(batches)
            try:
                snapshot = trainer.snapshot_of(
                    found.parameters[i], version, Origin.TRAIN, self._place.run
                )
            except InvalidArgument as error:
                overflow = error
                break
            valid = Evaluation.of(valid_loss, correct, len(trainer.sets.valid))
            progress = self._progress(numbers[i], loss, valid, version, began + (i + 1) * each)
            ends.append(EndOfEpoch(progress, snapshot))
        self._count(len(ends) * len(batches), len(ends) * len(batches.examples))
        if ends:
            yield ends
        if overflow:
            raise overflow

    def _count(self, steps: int, images: int) -> None:
        self._trainer.version += steps
        self._trainer.steps_done += steps
        self._trainer.images_done += images
        self._place = self._place._replace(steps=self._place.steps + steps)

    def _progress(
        self, epoch: int, loss: int, valid: Evaluation, version: int, now: float
    ) -> Progress:
        return Progress(
            epoch=epoch,
            epochs=self._request.epochs,
            train_loss=mean_loss(loss, len(self._trainer.sets.train)),
            valid_loss=valid.loss,
            valid_accuracy=valid.accuracy,
            version=version,
            elapsed=now - self._began,
        )
