"""The images as the notes build them: threes first, then sevens, as tensors in 0..1.

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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37.prepare import in_notes_order

Images = NDArray[np.uint8]  # (count, 28, 28), 0 = background, 255 = ink


@dataclass(frozen=True)
class Data:
    """The training and the validation set."""

    train_x: Tensor  # (12396, 784) float32 in 0..1
    train_y: Tensor  # (12396, 1) int64, 1 = three, 0 = seven
    valid_x: Tensor  # (2038, 784)
    valid_y: Tensor  # (2038, 1)

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
        *tensors(images["train_threes"], images["train_sevens"]),
        *tensors(images["valid_threes"], images["valid_sevens"]),
    )


def tensors(threes: Images, sevens: Images) -> tuple[Tensor, Tensor]:
    """X (count, 784) float32 in 0..1 and y (count, 1) int64, threes first."""
    x = torch.cat([torch.from_numpy(threes), torch.from_numpy(sevens)]).float() / 255
    y = torch.tensor([1] * len(threes) + [0] * len(sevens)).unsqueeze(1)
    return x.view(-1, 28 * 28), y


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
