"""The images as the notes build them: threes first, then sevens, as tensors in 0..1.

torch is loaded when a tensor is asked for; the server on a CPU asks for none.

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
    """Images as bytes, for mnist37.training."""

    pixels: NDArray[np.uint8]  # (N, 784), 0 = background, 255 = ink
    labels: NDArray[np.uint8]  # (N,), 1 = three, 0 = seven

    @classmethod
    def of(cls, threes: Images, sevens: Images) -> Self:
        """The threes, then the sevens."""
        pixels = np.concatenate([threes, sevens]).reshape(-1, 28 * 28)
        return cls(pixels, np.repeat(np.array([1, 0], np.uint8), [len(threes), len(sevens)]))


@dataclass(frozen=True)
class Data:
    """The training and the validation set: as bytes, and as the notes have them, as tensors."""

    train: LabeledImages
    valid: LabeledImages

    @cached_property
    def train_x(self) -> Tensor:
        """(12396, 784) float32 in 0..1."""
        return _scaled(self.train.pixels)

    @cached_property
    def train_y(self) -> Tensor:
        """(12396, 1) int64, 1 = three."""
        return _column(self.train.labels)

    @cached_property
    def valid_x(self) -> Tensor:
        """(2038, 784) float32 in 0..1."""
        return _scaled(self.valid.pixels)

    @cached_property
    def valid_y(self) -> Tensor:
        """(2038, 1) int64, 1 = three."""
        return _column(self.valid.labels)

    @cached_property
    def dset(self) -> list[tuple[Tensor, Tensor]]:
        """The training set as PyTorch's Dataset is: indexed, it gives an (x, y) pair."""
        return list(zip(self.train_x, self.train_y, strict=True))

    @cached_property
    def valid_dset(self) -> list[tuple[Tensor, Tensor]]:
        """The validation set, likewise."""
        return list(zip(self.valid_x, self.valid_y, strict=True))


def load(root: Path | None = None, *, download: bool = False) -> Data:
    """The 3s and 7s of MNIST in the notes' order.

    Args:
        root: read MNIST with torchvision from this folder; without it, the images that the
            package ships. The tensors are the same.
        download: let torchvision fetch what is missing in `root`.

    Raises:
        RuntimeError: torchvision finds no MNIST in `root`.
    """
    images = shipped() if root is None else from_torchvision(root, download=download)
    return Data(
        LabeledImages.of(images["train_threes"], images["train_sevens"]),
        LabeledImages.of(images["valid_threes"], images["valid_sevens"]),
    )


def shipped() -> dict[str, Images]:
    """The images that the package ships, made by mnist37.prepare."""
    with resources.files("mnist37").joinpath("images.npz").open("rb") as file:
        return dict(np.load(file))


def from_torchvision(root: Path, *, download: bool = False) -> dict[str, Images]:
    """The same images, read by torchvision from the original files under `root`."""
    from torchvision.datasets import MNIST  # takes a second, and is needed nowhere else

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
