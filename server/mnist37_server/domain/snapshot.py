"""One version of the model, whole and unchangeable: what readers are answered from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels

Images = NDArray[np.uint8] | NDArray[np.float32]  # pixels of 0 to 255, or of 0 to 1


class Origin(IntEnum):
    """What made a version; the numbers are stored."""

    INITIALIZE = 1
    STEP = 2
    TRAIN = 3
    RESTORE = 4
    IMPORT = 5


@dataclass(frozen=True)
class Snapshot:
    """The parameters after `version` updates, on the host."""

    version: int
    content: bytes  # the parameters as 785 little-endian float32: the weights, then the bias
    batch_cursor: int  # of the next Step without a batch, in its walk through the mini-batches
    origin: Origin
    run: int | None = None  # the number of the run, of Origin.TRAIN

    @cached_property
    def parameters(self) -> NDArray[np.float32]:
        """(785,): the weights, then the bias; nobody can write to it."""
        return np.frombuffer(self.content, "<f4")

    @property
    def digest(self) -> str:
        """Lowercase hexadecimal SHA-256 of `content`."""
        return hashlib.sha256(self.content).hexdigest()

    def predict(self, images: Images) -> NDArray[np.float32]:
        """The probability (N,), for each image of (N, 784), that it is a 3."""
        kernel: Any = kernels.predict if images.dtype == np.uint8 else kernels.predict_floats
        probabilities = np.empty(len(images), np.float32)
        kernel(images, self.parameters, probabilities)
        return probabilities

    def predict_bytes(self, message: bytes, start: int, count: int) -> bytearray:
        """The same, as float32, for the `count` images that a message has from `start` on."""
        probabilities = bytearray(4 * count)
        kernels.predict_bytes(message, start, count, self.parameters, probabilities)
        return probabilities
