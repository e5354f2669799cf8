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

from mnist37.model import init_params
from mnist37.training import (
    MOST_IN_A_SUM,
    PARAMETERS,
    Examples,
    MiniBatches,
    Sets,
    evaluate,
    mean_loss,
    sgd_step,
)
from mnist37_server.errors import InvalidArgument
from mnist37_server.requests import (
    MOST_INK,
    Batch,
    Initialize,
    Progress,
    Step,
    Train,
    magnitude,
)
from mnist37_server.snapshot import Origin, Snapshot
from mnist37_server.state import RunPlace

WALK = Train(epochs=1)  # whose seed and batch size order the Steps without a batch


def examples_of(batch: Batch, device: torch.device) -> Examples:
    """A caller's images and labels, put on the device."""
    # torch takes only arrays that it could write to; those of a message are not.
    pixels, labels = batch.images.copy(), batch.targets.copy()
    return Examples.of(torch.from_numpy(pixels), torch.from_numpy(labels), device)


class Trainer:
    """The parameters on the device, and the resident images they are trained on."""

    def __init__(self, sets: Sets, device: torch.device) -> None:
        self.sets = sets
        self.device = device
        self.parameters = torch.zeros(PARAMETERS, device=device)
        self.version = 0
        self._place = 0

    def snapshot(self, origin: Origin, run: int | None = None) -> Snapshot:
        """The model as it is now, and what made it so.

        Raises:
            InvalidArgument: an update's learning rate was so large that the parameters overflowed.
        """
        parameters = self.parameters.cpu().numpy().copy()
        if not magnitude(parameters) <= MOST_INK:  # true for NaN too
            raise InvalidArgument(
                "learning_rate",
                "this one drives the model beyond what float32 can hold",
                "choose a smaller one",
            )
        return Snapshot(self.version, parameters, self._place, origin, run)

    def reset(self, snapshot: Snapshot) -> None:
        """Makes the model what it was at a snapshot, as if nothing had been done since."""
        self.parameters.copy_(torch.from_numpy(snapshot.parameters))
        self.version, self._place = snapshot.version, snapshot.place

    def adopt(self, parameters: NDArray[np.float32]) -> None:
        """Makes parameters (785,) from elsewhere the model's, as an update."""
        self.parameters.copy_(torch.from_numpy(parameters))
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
            walk.step(self.parameters, self._place, request.learning_rate)
            loss = mean_loss(*walk.loss([self._place]))
            self._place = (self._place + 1) % len(walk)
        else:
            examples = examples_of(request.batch, self.device)
            probabilities = torch.empty_like(examples.signs)
            sgd_step(self.parameters, examples, request.learning_rate, out=probabilities)
            pieces = [slice(i, i + MOST_IN_A_SUM) for i in range(0, len(examples), MOST_IN_A_SUM)]
            total = sum(examples[piece].loss(probabilities[piece]) for piece in pieces)
            loss = mean_loss(total, len(examples))
        self.version += 1
        return loss

    def run(self, request: Train, place: RunPlace) -> Run:
        """A run over the training set, from where it is."""
        return Run(self, request, place)


class Run:
    """A Train under way; iterate over `steps` to go on with it."""

    def __init__(self, trainer: Trainer, request: Train, place: RunPlace) -> None:
        self._trainer = trainer
        self._request = request
        self._batches: MiniBatches = trainer.sets.mini_batches(request.seed, request.batch_size)
        self._began = time.monotonic() - place.elapsed
        self._place = place  # at the last step that `_todo` counts from
        self._done: list[int] = []  # the mini-batches of this epoch since `_place`

    def steps(self) -> Iterator[Progress | None]:
        """Does one step of SGD after the other; gives None after each, or the epoch's progress."""
        trainer, request, batches = self._trainer, self._request, self._batches
        per_epoch = len(batches)
        epoch, first = divmod(self._place.steps, per_epoch)
        for epoch_number in range(epoch + 1, request.epochs + 1):
            order = batches.order(epoch_number)[first:]
            for position, index in enumerate(order, 1):
                batches.step(trainer.parameters, index, request.learning_rate)
                trainer.version += 1
                self._done.append(index)
                if position < len(order):
                    yield None
            yield self._end_epoch(epoch_number)
            first = 0

    @property
    def place(self) -> RunPlace:
        """How far the run is; to go on from there later."""
        elapsed = time.monotonic() - self._began
        if not self._done:
            return self._place._replace(elapsed=elapsed)
        loss, images = self._batches.loss(self._done)
        return self._place._replace(
            steps=self._place.steps + len(self._done),
            loss=self._place.loss + loss,
            images=self._place.images + images,
            elapsed=elapsed,
        )

    def _end_epoch(self, epoch: int) -> Progress:
        place = self.place
        self._place, self._done = place._replace(loss=0, images=0), []
        valid = evaluate(self._trainer.parameters, [self._trainer.sets.valid])
        return Progress(
            epoch=epoch,
            epochs=self._request.epochs,
            train_loss=mean_loss(place.loss, place.images),
            valid_loss=valid.loss,
            valid_accuracy=valid.accuracy,
            version=self._trainer.version,
            elapsed=time.monotonic() - self._began,
        )
