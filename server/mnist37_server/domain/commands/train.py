"""The request for a training run: its settings, its schedule and its early stopping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist37.optimizer import Sgd
from mnist37.schedule import Schedule, Shape
from mnist37_server.domain.commands.checks import (
    EPOCHS_MAX,
    RUN_NAME_LENGTH_MAX,
    TRAINING_IMAGES,
    check_learning_rate,
    check_length,
    check_range,
)
from mnist37_server.domain.commands.fingerprint import Fingerprinted
from mnist37_server.errors import InvalidArgument

CONSTANT = Schedule()


@dataclass(frozen=True)
class EarlyStopping:
    """The rule that ends a run when its validation loss no longer gets lower."""

    patience: int  # epochs without a loss that is lower by min_delta
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_range("patience", self.patience, 1, EPOCHS_MAX)
        if not 0 <= self.min_delta < float("inf"):  # false for NaN too
            raise InvalidArgument("min_delta", f"got {self.min_delta:g}", "must be at least 0")


@dataclass(frozen=True)
class Train(Fingerprinted):
    """A run of SGD over the training set."""

    epochs: int
    sgd: Sgd = Sgd()
    batch_size: int = 256
    seed: int = 42
    name: str | None = None  # a label
    schedule: Schedule = CONSTANT
    early_stopping: EarlyStopping | None = None

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, EPOCHS_MAX)
        check_learning_rate(self.sgd.learning_rate)
        check_range("batch_size", self.batch_size, 1, TRAINING_IMAGES)
        if self.name is not None:
            check_length("name", self.name, RUN_NAME_LENGTH_MAX)
        self._check_schedule()

    def _check_schedule(self) -> None:
        final_rate = self.schedule.final_rate
        if self.schedule.shape is Shape.CONSTANT:
            if final_rate is not None:
                raise InvalidArgument(
                    "final_learning_rate",
                    f"got {final_rate:g} for a constant learning rate",
                    "set schedule to SCHEDULE_LINEAR or SCHEDULE_COSINE",
                )
        elif final_rate is None:
            raise InvalidArgument(
                "final_learning_rate",
                f"is missing for a {self.schedule.shape.value} schedule",
                "must be the learning rate of the last epoch",
            )
        else:
            check_learning_rate(final_rate, "final_learning_rate")
        check_range("warmup_epochs", self.schedule.warmup_epochs, 0, self.epochs)

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        schedule, stopping = self.schedule, self.early_stopping
        return "Train", {
            "epochs": self.epochs,
            "learning_rate": self.sgd.learning_rate,
            "batch_size": self.batch_size,
            "seed": self.seed,
            **self.added_fields(
                name=(self.name, None),
                schedule=(schedule.shape.value, Shape.CONSTANT.value),
                final_learning_rate=(schedule.final_rate, None),
                warmup_epochs=(schedule.warmup_epochs, 0),
                patience=(None if stopping is None else stopping.patience, None),
                min_delta=(0.0 if stopping is None else stopping.min_delta, 0.0),
            ),
        }

    def rates(self, epochs: range) -> NDArray[np.float32]:
        """Return the learning rate (E,) of each of these epochs; the first one is 1."""
        return self.schedule.rates(self.sgd.learning_rate, epochs, self.epochs)
