"""What the calls return: plain values and numpy arrays, no messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """What the model says of N images, all of it from one version."""

    probabilities: NDArray[np.float32]  # (N,), that each image is a 3
    version: int

    @property
    def digits(self) -> NDArray[np.uint8]:
        """(N,), 3 or 7 for each image."""
        return np.where(self.probabilities > 0.5, 3, 7).astype(np.uint8)


@dataclass(frozen=True)
class Progress:
    """How a run stands after an epoch."""

    epoch: int  # from 1
    epochs: int
    train_loss: float  # the mean over the images of the losses before each update
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: float  # seconds of training since the run began

    @classmethod
    def of(cls, message: pb.TrainResponse) -> Progress:
        """From its message."""
        return cls(
            message.epoch,
            message.epochs,
            message.train_loss,
            message.valid_loss,
            message.valid_accuracy,
            message.version,
            message.elapsed.ToNanoseconds() / 1e9,
        )


@dataclass(frozen=True)
class StepResult:
    """What one step of SGD did."""

    loss: float  # the mean on its batch, before the update
    version: int  # that the update made


@dataclass(frozen=True)
class Loss:
    """How well the model does on some images."""

    loss: float
    accuracy: float
    count: int  # of images
    version: int


@dataclass(frozen=True)
class Version:
    """A version of the model that the server keeps."""

    version: int
    origin: str  # what made it: initialize, step, train, restore, import
    run: int | None  # the number of the run, where one made it
    committed_at: datetime

    @classmethod
    def of(cls, message: pb.ModelVersion) -> Version:
        """From its message."""
        return cls(
            message.version,
            pb.Origin.Name(message.origin).removeprefix("ORIGIN_").lower(),
            message.run if message.HasField("run") else None,
            message.committed_at.ToDatetime(UTC),
        )


@dataclass(frozen=True)
class Run:
    """A training run: its settings, and how it stands."""

    run: int  # its number
    state: str  # running, finished or interrupted
    request_id: str | None
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    started_at: datetime
    version: int  # of the model after its last commit
    last: Progress | None  # of the last epoch that was finished

    @classmethod
    def of(cls, message: pb.Run) -> Run:
        """From its message."""
        return cls(
            message.run,
            pb.RunState.Name(message.state).removeprefix("RUN_STATE_").lower().replace("_", " "),
            message.request_id if message.HasField("request_id") else None,
            message.epochs,
            message.learning_rate,
            message.batch_size,
            message.seed,
            message.started_at.ToDatetime(UTC),
            message.version,
            Progress.of(message.last) if message.HasField("last") else None,
        )


@dataclass(frozen=True)
class Model:
    """The parameters."""

    weights: NDArray[np.float32]  # (784,)
    bias: np.float32
    version: int  # how many updates made it
    digest: str  # SHA-256 of the 785 little-endian float32, weights then bias
    device: str  # where they live
