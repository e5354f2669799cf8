"""The model being trained, on its device: what each of the writes does to it.

A trainer is ahead of what is committed, and belongs to the one thread that writes. Its `snapshot`
is what gets committed; `reset` takes it back to what was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from mnist37.losses import mean_loss
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
# A run looks at these many steps' ends, or at an epoch's, whether it has to stop: within some ms.
STEPS_AT_A_TIME = 1_024


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
        parameters = self.parameters.cpu().numpy()
        if not magnitude(parameters) <= MOST_INK:  # true for NaN too
            raise InvalidArgument(
                "learning_rate",
                "this one drives the model beyond what float32 can hold",
                "choose a smaller one",
            )
        content = parameters.astype("<f4", copy=False).tobytes()
        return Snapshot(self.version, content, self._place, origin, run)

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


class Run:
    """A Train under way; iterate over `parts` to go on with it."""

    def __init__(self, trainer: Trainer, request: Train, place: RunPlace) -> None:
        self._trainer = trainer
        self._request = request
        self._batches = trainer.sets.mini_batches(request.seed, request.batch_size)
        self._began = time.monotonic() - place.elapsed
        self._place = place

    def parts(self) -> Iterator[Progress | None]:
        """Does some steps of SGD at a time; gives the progress when an epoch ends, else None."""
        trainer, request, batches = self._trainer, self._request, self._batches
        epochs_done, steps_done = divmod(self._place.steps, len(batches))
        last = len(batches) - 1
        short = batches.batch_size - batches.count(last)  # images that the last one has fewer
        for epoch in range(epochs_done + 1, request.epochs + 1):
            order = batches.order(epoch)
            for first in range(steps_done, len(order), STEPS_AT_A_TIME):
                part = order[first : first + STEPS_AT_A_TIME]
                loss = batches.sgd(trainer.parameters, part, request.learning_rate)
                trainer.version += len(part)
                trainer.steps_done += len(part)
                trainer.images_done += len(part) * batches.batch_size - short * int(last in part)
                self._place = self._place._replace(
                    steps=self._place.steps + len(part), loss=self._place.loss + loss
                )
                ended = first + len(part) == len(order)
                yield self._end_epoch(epoch) if ended else None
            steps_done = 0

    @property
    def place(self) -> RunPlace:
        """How far the run is; to go on from there later."""
        return self._place._replace(elapsed=time.monotonic() - self._began)

    def _end_epoch(self, epoch: int) -> Progress:
        sets = self._trainer.sets
        train_loss = mean_loss(self._place.loss, len(sets.train))
        self._place = self._place._replace(loss=0)
        valid = evaluate(self._trainer.parameters, sets.valid)
        return Progress(
            epoch=epoch,
            epochs=self._request.epochs,
            train_loss=train_loss,
            valid_loss=valid.loss,
            valid_accuracy=valid.accuracy,
            version=self._trainer.version,
            elapsed=time.monotonic() - self._began,
        )
