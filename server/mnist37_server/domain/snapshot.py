"""The snapshot: an immutable version of the model in memory, from which reads are answered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels

Images = NDArray[np.uint8] | NDArray[np.float32]  # pixels from 0 to 255, or from 0 to 1


class Origin(IntEnum):
    """The kind of write that made a version; the numbers are stored and never change."""

    INITIALIZE = 1
    STEP = 2
    TRAIN = 3
    RESTORE = 4
    IMPORT = 5


@dataclass(frozen=True)
class Snapshot:
    """The model after `version` updates, in the memory of the host."""

    version: int
    content: bytes  # the parameters as 785 little-endian float32: the weights, then the bias
    batch_cursor: int  # position of the next Step without a batch, among the mini-batches
    origin: Origin
    run: int | None = None  # the number of the run, for Origin.TRAIN

    @cached_property
    def parameters(self) -> NDArray[np.float32]:
        """Return the parameters (785,), the weights, then the bias, as a read-only array."""
        return np.frombuffer(self.content, "<f4")

    @property
    def digest(self) -> str:
        """Return the SHA-256 of `content`, in lowercase hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Return the probability (N,), for each image of (N, 784), that it is a 3."""
        kernel: Any = kernels.predict if images.dtype == np.uint8 else kernels.predict_floats
        probabilities = np.empty(len(images), np.float32)
        kernel(images, self.parameters, probabilities)
        return probabilities

    def predict_bytes(self, message: bytes, start: int, count: int) -> bytearray:
        """Return the probability that it is a 3, for each of the images in a message.

        Args:
            message: has `count` images of 784 bytes each.
            start: the offset of the first image, in bytes.
            count: the number of images.

        Returns:
            `count` probabilities, as float32.
        """
        probabilities = bytearray(4 * count)
        kernels.predict_bytes(message, start, count, self.parameters, probabilities)
        return probabilities
