"""The images in the notes' order, threes first, then sevens: as bytes, and as tensors in 0..1.

A tensor's property loads torch at first use; the server on a CPU uses none.

data = load()
data.train_x    (12396, 784) float32        data.train_y    (12396, 1) int64, 1 = three
data.valid_x    (2038, 784)                 data.valid_y    (2038, 1)
data.dset[0]    (x, y) of the first training image: shapes (784,) and (1,)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mnist37.prepare import in_notes_order

if TYPE_CHECKING:
    from torch import Tensor

Images = NDArray[np.uint8]  # (count, 28, 28), 0 = background, 255 = ink


@dataclass(frozen=True)
class LabeledImages:
    """Images as bytes, with their labels, for mnist37.training."""

    pixels: NDArray[np.uint8]  # (N, 784), 0 = background, 255 = ink
    labels: NDArray[np.uint8]  # (N,), 1 = three, 0 = seven

    @classmethod
    def of(cls, threes: Images, sevens: Images) -> Self:
        """Return the threes, then the sevens, both (count, 28, 28), with their labels."""
        pixels = np.concatenate([threes, sevens]).reshape(-1, 28 * 28)
        return cls(pixels, np.repeat(np.array([1, 0], np.uint8), [len(threes), len(sevens)]))


@dataclass(frozen=True)
class Data:
    """The training and the validation set, as bytes and, as in the notes, as tensors."""

    train: LabeledImages
    valid: LabeledImages

    @cached_property
    def train_x(self) -> Tensor:
        """Return the training images (12396, 784), float32 in 0..1."""
        return _scaled(self.train.pixels)

    @cached_property
    def train_y(self) -> Tensor:
        """Return the training labels (12396, 1), int64, 1 = three."""
        return _column(self.train.labels)

    @cached_property
    def valid_x(self) -> Tensor:
        """Return the validation images (2038, 784), float32 in 0..1."""
        return _scaled(self.valid.pixels)

    @cached_property
    def valid_y(self) -> Tensor:
        """Return the validation labels (2038, 1), int64, 1 = three."""
        return _column(self.valid.labels)

    @cached_property
    def dset(self) -> list[tuple[Tensor, Tensor]]:
        """Return the training set in the form of a PyTorch Dataset: items are (x, y) pairs."""
        return list(zip(self.train_x, self.train_y, strict=True))

    @cached_property
    def valid_dset(self) -> list[tuple[Tensor, Tensor]]:
        """Return the validation set in the form of a PyTorch Dataset: items are (x, y) pairs."""
        return list(zip(self.valid_x, self.valid_y, strict=True))


def load(root: Path | None = None, *, download: bool = False) -> Data:
    """Return the 3s and 7s of MNIST in the notes' order.

    Args:
        root: the folder from which torchvision reads MNIST. Without it, `load` reads the images
            that the package ships. The tensors are the same.
        download: whether torchvision downloads the files that are missing in `root`.

    Raises:
        RuntimeError: `root` does not contain MNIST.
    """
    images = load_shipped() if root is None else from_torchvision(root, download=download)
    return Data(
        LabeledImages.of(images["train_threes"], images["train_sevens"]),
        LabeledImages.of(images["valid_threes"], images["valid_sevens"]),
    )


def load_shipped() -> dict[str, Images]:
    """Read the images that the package ships, which mnist37.prepare made.

    Returns:
        The arrays (count, 28, 28) train_threes, train_sevens, valid_threes and valid_sevens.
    """
    with resources.files("mnist37").joinpath("images.npz").open("rb") as file:
        return dict(np.load(file))


def from_torchvision(root: Path, *, download: bool = False) -> dict[str, Images]:
    """Read the images with torchvision from the original files under `root`.

    Returns:
        The arrays (count, 28, 28) train_threes, train_sevens, valid_threes and valid_sevens.
    """
    from torchvision.datasets import MNIST  # the import takes a second; only this function needs it

    images = {}
    for split in ("train", "valid"):
        mnist = MNIST(str(root), train=split == "train", download=download)
        pixels, labels = mnist.data.numpy(), mnist.targets.numpy()
        images[f"{split}_threes"] = in_notes_order(pixels, labels, 3)
        images[f"{split}_sevens"] = in_notes_order(pixels, labels, 7)
    return images


def _scaled(pixels: NDArray[np.uint8]) -> Tensor:
    import torch

    return torch.from_numpy(pixels).float() / 255


def _column(labels: NDArray[np.uint8]) -> Tensor:
    import torch

    return torch.from_numpy(labels).long().unsqueeze(1)
