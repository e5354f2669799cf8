"""Images and labels as callers send them, and the names of the resident images."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mnist37.kernels import PIXELS
from mnist37_server.errors import InvalidArgument


def count_images(size_bytes: int, field: str = "pixels") -> int:
    """Return how many images of 784 bytes have this size.

    Args:
        size_bytes: the size of all images together.
        field: the field of the request that has them, for the error.

    Raises:
        InvalidArgument: the size is 0 or not a multiple of 784.
    """
    count, remainder = divmod(size_bytes, PIXELS)
    if remainder or not count:
        raise InvalidArgument(
            field, f"got {size_bytes:,} bytes", "must be 784 bytes (28 x 28) an image, 1 or more"
        )
    return count


def view_images(pixels: bytes, field: str = "pixels") -> NDArray[np.uint8]:
    """Return the images (N, 784) in `pixels`, as a view without a copy.

    Args:
        pixels: N * 784 bytes.
        field: the field of the request that has them, for the error.

    Raises:
        InvalidArgument: `pixels` is empty, or its size is not a multiple of 784 bytes.
    """
    return np.frombuffer(pixels, np.uint8).reshape(count_images(len(pixels), field), PIXELS)


@dataclass(frozen=True)
class Batch:
    """A caller's images and their labels, as the bytes of the request."""

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
        indices = np.flatnonzero(self.targets > 1)  # of the labels that are out of range
        if len(indices):
            raise InvalidArgument(
                "batch.labels",
                f"got {self.targets[indices[0]]} for image {indices[0]:,}",
                "must be 1 (a three) or 0 (a seven)",
            )

    @property
    def images(self) -> NDArray[np.uint8]:
        """Return the images (N, 784), as a view without a copy."""
        return view_images(self.pixels, "batch.pixels")

    @property
    def targets(self) -> NDArray[np.uint8]:
        """Return the labels (N,), 1 = three, 0 = seven, as a view without a copy."""
        return np.frombuffer(self.labels, np.uint8)


class Split(Enum):
    """The two sets of resident images."""

    TRAIN = "train"
    VALID = "valid"
