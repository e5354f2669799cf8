"""What the writes ask for and how they are answered, with the contract's defaults and ranges.

A request is a frozen dataclass that checks its values when it is made, so whatever holds one holds
a right one. Its fingerprint tells whether a request_id comes again with the same request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels
from mnist37.kernels import PIXELS
from mnist37_server.errors import InvalidArgument

TRAINING_IMAGES = 12_396
MAX_EPOCHS = 1_000_000
MAX_STD = 100.0
MOST_INK = 3e38  # what an image may score, so that no sum is beyond float32
MAX_LEARNING_RATE = 3e38  # what the arithmetic's float32 can hold
MAX_REQUEST_ID = 128  # characters


def count_of(size: int, field: str = "pixels") -> int:
    """How many images have so many bytes.

    Raises:
        InvalidArgument: none, or not a whole number of them; names `field`.
    """
    count, left = divmod(size, PIXELS)
    if left or not count:
        raise InvalidArgument(
            field, f"got {size:,} bytes", "must be 784 bytes (28 x 28) an image, 1 or more"
        )
    return count


def images_of(pixels: bytes, field: str = "pixels") -> NDArray[np.uint8]:
    """The images (N, 784) in `pixels`, without copying; raises as `count_of`."""
    return np.frombuffer(pixels, np.uint8).reshape(count_of(len(pixels), field), PIXELS)


@dataclass(frozen=True)
class Batch:
    """Images with what they show, as they came."""

    pixels: bytes  # N x 784 uint8
    labels: bytes  # N, 1 = three, 0 = seven

    def __post_init__(self) -> None:
        count = len(self.images)
        if len(self.labels) != count:
            raise InvalidArgument(
                "batch.labels",
                f"got {len(self.labels):,} bytes for {count:,} images",
                "must be 1 byte an image",
            )
        wrong = np.flatnonzero(self.targets > 1)
        if len(wrong):
            raise InvalidArgument(
                "batch.labels",
                f"got {self.targets[wrong[0]]} for image {wrong[0]:,}",
                "must be 1 (a three) or 0 (a seven)",
            )

    @property
    def images(self) -> NDArray[np.uint8]:
        """(N, 784)."""
        return images_of(self.pixels, "batch.pixels")

    @property
    def targets(self) -> NDArray[np.uint8]:
        """(N,), 1 = three, 0 = seven."""
        return np.frombuffer(self.labels, np.uint8)


@dataclass(frozen=True)
class Fingerprinted:
    """A request that can be told from others without keeping its values."""

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that requests share only if they are of one kind and have the same values."""
        # No cached_property: in Python 3.11 all requests would wait while one large one is hashed.
        found: bytes | None = self.__dict__.get("_fingerprint")
        if found is None:
            found = self.__dict__["_fingerprint"] = self._hashed()
        return found

    def _hashed(self) -> bytes:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        batch = values.get("batch")
        if batch is not None:
            contents = [hashlib.sha256(part).digest() for part in (batch.pixels, batch.labels)]
            values["batch"] = contents
        return hashlib.sha256(f"{type(self).__name__} {values!r}".encode()).digest()


@dataclass(frozen=True)
class Step(Fingerprinted):
    """One step of SGD, on `batch` or on the training set's next mini-batch."""

    batch: Batch | None = None
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)


@dataclass(frozen=True)
class Train(Fingerprinted):
    """A run of SGD over the training set."""

    epochs: int
    learning_rate: float = 1.0
    batch_size: int = 256
    seed: int = 42

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, MAX_EPOCHS)
        check_learning_rate(self.learning_rate)
        check_range("batch_size", self.batch_size, 1, TRAINING_IMAGES)


@dataclass(frozen=True)
class Initialize(Fingerprinted):
    """Fresh random parameters."""

    seed: int = 42
    std: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.std <= MAX_STD:  # false for NaN too
            raise InvalidArgument("std", f"got {self.std:g}", f"must be 0 to {MAX_STD:g}")


@dataclass(frozen=True)
class Restore(Fingerprinted):
    """The parameters of a kept version again."""

    version: int


@dataclass(frozen=True)
class Import(Fingerprinted):
    """Parameters from elsewhere."""

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
        if magnitude(self.parameters) > MOST_INK:
            raise InvalidArgument(
                "weights", "their sum is beyond what float32 can hold", "must be smaller"
            )

    @property
    def parameters(self) -> NDArray[np.float32]:
        """(785,): the weights, then the bias."""
        return np.append(np.frombuffer(self.weights, "<f4"), self.bias).astype(np.float32)


Request = Step | Train | Initialize | Restore | Import


class Stepped(NamedTuple):
    """A Step's answer."""

    loss: float  # the mean on the batch, before the update
    version: int  # that the update made


class Progress(NamedTuple):
    """A Train's answer after each epoch."""

    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: float  # seconds of training since the run began


class Written(NamedTuple):
    """The answer to an Initialize, a Restore or an Import."""

    version: int


Answer = Stepped | Progress | Written


def answer_to(request: Request, values: Sequence[Any]) -> Answer:
    """The answer with these values, in the order of its fields."""
    if isinstance(request, Step):
        return Stepped._make(values)
    return Progress._make(values) if isinstance(request, Train) else Written._make(values)


def epochs(answers: Sequence[Answer]) -> list[Progress]:
    """The answers to a Train, as what they are."""
    found = [answer for answer in answers if isinstance(answer, Progress)]
    assert len(found) == len(answers)
    return found


def magnitude(parameters: NDArray[np.float32]) -> float:
    """The most that any image can score, or NaN; up to MOST_INK no partial sum overflows."""
    return float(magnitudes(parameters[None])[0])


def magnitudes(parameters: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same (N,) of several (N, 785)."""
    found = np.empty(len(parameters), np.float64)
    kernels.magnitude(parameters, found)
    return found


def check_range(field: str, value: int, least: int, most: int) -> None:
    """Raises InvalidArgument unless least <= value <= most."""
    if not least <= value <= most:
        raise InvalidArgument(field, f"got {value:,}", f"must be {least:,} to {most:,}")


def check_learning_rate(value: float) -> None:
    """Raises InvalidArgument unless the learning rate is above 0 and a finite float32 too."""
    if not 0 < value <= MAX_LEARNING_RATE:  # false for NaN too
        raise InvalidArgument(
            "learning_rate",
            f"got {value:g}",
            f"must be above 0 and at most {MAX_LEARNING_RATE:.1g}",
        )


def check_request_id(request_id: str) -> None:
    """Raises InvalidArgument unless the id has 1 to 128 characters."""
    if not 1 <= len(request_id) <= MAX_REQUEST_ID:
        raise InvalidArgument(
            "request_id", f"got {len(request_id):,} characters", f"must have 1 to {MAX_REQUEST_ID}"
        )
