"""The requests for writes, with the defaults and the ranges of the API.

A request is a frozen dataclass that checks its values when it is created, so every request object
is valid. Its fingerprint shows whether a repeated request_id comes with the same request.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist37.optimizer import Sgd
from mnist37_server.domain.examples import Batch
from mnist37_server.domain.parameters import ABSOLUTE_SUM_MAX, absolute_sum
from mnist37_server.errors import InvalidArgument

TRAINING_IMAGES = 12_396
EPOCHS_MAX = 1_000_000
STD_MAX = 100.0
LEARNING_RATE_MAX = 3e38  # below the largest float32: the kernels compute in float32
REQUEST_ID_LENGTH_MAX = 128  # characters


class Fingerprinted(ABC):
    """A request with a fingerprint, which is stored in place of its values.

    The store keeps the fingerprint with the request_id, so the hashed text never changes. For this
    reason `hashed_fields` spells out the method's name and the fields' names and order: they do not
    follow the names of the classes and the attributes. A field that a later release adds is hashed
    only where its value is not the default (`added_fields`), so requests of earlier releases keep
    their fingerprints.
    """

    @abstractmethod
    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""

    @staticmethod
    def added_fields(**fields: tuple[object, object]) -> dict[str, object]:
        """Return the values of later fields, without the values that are the defaults.

        Args:
            fields: the value of each field, and its default.
        """
        return {name: value for name, (value, default) in fields.items() if value != default}

    @property
    def fingerprint(self) -> bytes:
        """Return 32 bytes that are equal only for requests of one method with equal values."""
        # No cached_property: in Python 3.11 it holds one lock for all instances, so every request
        # would wait while one large request is hashed.
        digest: bytes | None = self.__dict__.get("_fingerprint")
        if digest is None:
            method, values = self.hashed_fields()
            digest = hashlib.sha256(f"{method} {values!r}".encode()).digest()
            self.__dict__["_fingerprint"] = digest
        return digest


@dataclass(frozen=True)
class Step(Fingerprinted):
    """One step of SGD: on `batch`, or on the training set's next mini-batch if it is None."""

    batch: Batch | None = None
    sgd: Sgd = Sgd()

    def __post_init__(self) -> None:
        check_learning_rate(self.sgd.learning_rate)

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        batch = None
        if self.batch is not None:
            contents = (self.batch.pixels, self.batch.labels)
            batch = [hashlib.sha256(content).digest() for content in contents]
        return "Step", {"batch": batch, "learning_rate": self.sgd.learning_rate}


@dataclass(frozen=True)
class Train(Fingerprinted):
    """A run of SGD over the training set."""

    epochs: int
    sgd: Sgd = Sgd()
    batch_size: int = 256
    seed: int = 42

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, EPOCHS_MAX)
        check_learning_rate(self.sgd.learning_rate)
        check_range("batch_size", self.batch_size, 1, TRAINING_IMAGES)

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "Train", {
            "epochs": self.epochs,
            "learning_rate": self.sgd.learning_rate,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Initialize(Fingerprinted):
    """A replacement of the parameters by new random ones."""

    seed: int = 42
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.std <= STD_MAX:  # false for NaN too
            raise InvalidArgument("std", f"got {self.std:g}", f"must be 0 to {STD_MAX:g}")

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "Initialize", {"seed": self.seed, "std": self.std}


@dataclass(frozen=True)
class Restore(Fingerprinted):
    """A replacement of the parameters by the parameters of a retained version."""

    version: int

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "Restore", {"version": self.version}


@dataclass(frozen=True)
class Import(Fingerprinted):
    """A replacement of the parameters by the caller's."""

    weights: bytes  # 784 little-endian float32
    bias: float

    def __post_init__(self) -> None:
        if len(self.weights) != 784 * 4:
            raise InvalidArgument(
                "weights", f"got {len(self.weights):,} bytes", "must be 784 little-endian float32"
            )
        for field, values in (("weights", self.parameters[:-1]), ("bias", self.parameters[-1:])):
            if not np.isfinite(values).all():
                raise InvalidArgument(field, "got NaN or infinity", "must be finite")
        if absolute_sum(self.parameters) > ABSOLUTE_SUM_MAX:
            raise InvalidArgument(
                "weights", "their sum is beyond what float32 can hold", "must be smaller"
            )

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "Import", {"weights": self.weights, "bias": self.bias}

    @property
    def parameters(self) -> NDArray[np.float32]:
        """Return the parameters (785,): the weights, then the bias."""
        return np.append(np.frombuffer(self.weights, "<f4"), self.bias).astype(np.float32)


Request = Step | Train | Initialize | Restore | Import


def check_range(field: str, value: int, minimum: int, maximum: int) -> None:
    """Raise InvalidArgument unless minimum <= value <= maximum."""
    if not minimum <= value <= maximum:
        raise InvalidArgument(field, f"got {value:,}", f"must be {minimum:,} to {maximum:,}")


def check_learning_rate(value: float) -> None:
    """Raise InvalidArgument unless the learning rate is above 0 and finite as a float32."""
    if not 0 < value <= LEARNING_RATE_MAX:  # false for NaN too
        raise InvalidArgument(
            "learning_rate",
            f"got {value:g}",
            f"must be above 0 and at most {LEARNING_RATE_MAX:.1g}",
        )


def check_request_id(request_id: str) -> None:
    """Raise InvalidArgument unless the request_id has 1 to 128 characters."""
    if not 1 <= len(request_id) <= REQUEST_ID_LENGTH_MAX:
        raise InvalidArgument(
            "request_id",
            f"got {len(request_id):,} characters",
            f"must have 1 to {REQUEST_ID_LENGTH_MAX}",
        )
