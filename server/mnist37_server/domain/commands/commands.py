"""The requests for writes, with the defaults and the ranges of the API.

A request is a frozen dataclass that checks its values when it is created, so every request object
is valid. Its fingerprint shows whether a repeated request_id comes with the same request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist37.optimizer import Sgd
from mnist37_server.domain.commands.checks import check_learning_rate, check_tag_name
from mnist37_server.domain.commands.fingerprint import Fingerprinted
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.examples import Batch
from mnist37_server.domain.parameters import ABSOLUTE_SUM_MAX, absolute_sum
from mnist37_server.errors import InvalidArgument

STD_MAX = 100.0


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

    version: int | str  # its number, or a tag

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "Restore", named_version(self.version)


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


@dataclass(frozen=True)
class TagVersion(Fingerprinted):
    """A change of a tag, so that it points to a version."""

    name: str
    version: int | str | None = None  # its number, or another tag; None: the newest version

    def __post_init__(self) -> None:
        check_tag_name(self.name)

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "TagVersion", {"name": self.name, **named_version(self.version)}


@dataclass(frozen=True)
class DeleteTag(Fingerprinted):
    """The removal of a tag."""

    name: str

    def __post_init__(self) -> None:
        check_tag_name(self.name)

    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""
        return "DeleteTag", {"name": self.name}


TagChange = TagVersion | DeleteTag  # they do not wait for the other writes
Request = Step | Train | Initialize | Restore | Import | TagChange


def named_version(version: int | str | None) -> dict[str, object]:
    """Return the hashed fields of a version that is named by its number or by a tag."""
    return {"tag": version} if isinstance(version, str) else {"version": version}
