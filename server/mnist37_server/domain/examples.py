"""Images and labels as callers send them, and the sets that the server holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mnist37.kernels import PIXELS
from mnist37_server.errors import InvalidArgument


def count_images(size: int, field: str = "pixels") -> int:
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


def view_images(pixels: bytes, field: str = "pixels") -> NDArray[np.uint8]:
    """The images (N, 784) in `pixels`, without copying; raises as `count_of`."""
    return np.frombuffer(pixels, np.uint8).reshape(count_images(len(pixels), field), PIXELS)


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
        return view_images(self.pixels, "batch.pixels")

    @property
    def targets(self) -> NDArray[np.uint8]:
        """(N,), 1 = three, 0 = seven."""
        return np.frombuffer(self.labels, np.uint8)


class Split(Enum):
    """The two sets of images that the server holds."""

    TRAIN = "train"
    VALID = "valid"
