"""The results of calls: immutable values and numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """The probabilities of N images, all from one version of the model."""

    probabilities: NDArray[np.float32]  # (N,), the probability that an image is a 3
    version: int

    @property
    def digits(self) -> NDArray[np.uint8]:
        """Return the digit of each image, 3 or 7, as uint8 (N,)."""
        return np.where(self.probabilities > 0.5, 3, 7).astype(np.uint8)


@dataclass(frozen=True)
class Progress:
    """The state of a training run after an epoch."""

    epoch: int  # from 1
    epochs: int
    train_loss: float  # mean over the training images, each before the update of its mini-batch
    valid_loss: float  # mean over the validation images
    valid_accuracy: float  # 0 to 1
    version: int
    elapsed: float  # seconds since the run began, without the time that it was interrupted
    run: int  # the number of the run
    # With the last epoch of a finished run: the epoch with the lowest validation loss.
    best_epoch: int | None
    stopped_early: bool  # whether the run's patience ended it with this epoch


@dataclass(frozen=True)
class StepResult:
    """The result of one step of SGD."""

    loss: float  # mean over the batch, before the update
    version: int  # of the model after the update


@dataclass(frozen=True)
class Loss:
    """The loss and the accuracy of a version of the model on a set of images."""

    loss: float  # mean over the images
    accuracy: float  # 0 to 1
    count: int  # of images
    version: int
    threes_right: int
    threes_called_sevens: int
    sevens_right: int
    sevens_called_threes: int

    @classmethod
    def over(cls, parts: Sequence[Loss]) -> Loss:
        """Return the loss over all images of several parts, which are of one version."""
        count = sum(part.count for part in parts)
        return cls(
            sum(part.loss * part.count for part in parts) / count,
            sum(part.accuracy * part.count for part in parts) / count,
            count,
            parts[0].version,
            sum(part.threes_right for part in parts),
            sum(part.threes_called_sevens for part in parts),
            sum(part.sevens_right for part in parts),
            sum(part.sevens_called_threes for part in parts),
        )


@dataclass(frozen=True)
class Version:
    """A retained version of the model."""

    version: int
    # The write that made it: initialize, step, train, restore or import; or unknown (of a later
    # server).
    origin: str
    run: int | None  # the number of the run, if a run made it
    committed_at: datetime


@dataclass(frozen=True)
class Tag:
    """A name for a version: a caller's, or the server's `best@RUN`."""

    name: str
    version: int
    run: int | None  # the number of the run, if a run made the version
    tagged_at: datetime


@dataclass(frozen=True)
class Position:
    """A point in the history of a model."""

    start: int  # the random id of a start of the model's owner
    version: int


@dataclass(frozen=True)
class Follower:
    """A server that follows the owner and answers reads."""

    id: str  # "" for a reader without a name
    address: str  # at which others reach it, as it says itself
    start: int  # of the last position that the owner sent to it
    version: int
    age: float  # seconds since this position ceased to be the newest; 0 if it is the newest
    connected_at: datetime


@dataclass(frozen=True)
class Run:
    """A training run: its settings and its state."""

    run: int | None  # the number of the run, from 1; None while it is queued
    state: str  # queued, running, finished or interrupted; or unknown (of a later server)
    request_id: str | None
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    started_at: datetime | None  # None while it is queued
    version: int | None  # of the model after its last commit; None while it is queued
    last: Progress | None  # after the last finished epoch; None before the first
    name: str | None
    schedule: str  # constant, linear or cosine; or unknown (of a later server)
    final_learning_rate: float | None  # of the last epoch, of a linear or cosine schedule
    warmup_epochs: int
    patience: int | None
    min_delta: float | None
    best_epoch: int | None  # with the lowest validation loss so far
    best_version: int | None  # after that epoch; the tag best@RUN points to it
    queue_position: int | None  # how many writes come before a queued run

    @property
    def position(self) -> str:
        """Return how far the run is, as a text: run 7 (epoch 40 of 200)."""
        return f"run {self.run} (epoch {self.last.epoch if self.last else 0} of {self.epochs})"


@dataclass(frozen=True)
class Model:
    """The parameters of a version of the model."""

    weights: NDArray[np.float32]  # (784,)
    bias: np.float32
    version: int  # the number of updates that made it
    digest: str  # SHA-256 of the 785 little-endian float32, weights then bias
    device: str  # that the server trains on, as torch prints it: cpu, cuda:0
