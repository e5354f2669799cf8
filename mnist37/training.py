"""Training at full speed: the images on their device, and the order in which a run sees them.

What is done to them is mnist37.kernels' on the CPU and mnist37.device's elsewhere; both take the
same steps as mnist37.model does, and the tests hold them against autograd.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37 import kernels
from mnist37.data import Data
from mnist37.kernels import Labels, Pixels
from mnist37.losses import Evaluation

PARAMETERS = 784 + 1  # the weights, then the bias


class Examples(Protocol):
    """Images and their labels on a device."""

    def __len__(self) -> int: ...

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """A copy in this order (N,)."""

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, lr: float) -> int:
        """One step of SGD on mnist_loss after the other; moves `parameters` (785,) in place.

        Args:
            parameters: the weights, then the bias; float32, on the same device.
            order: which mini-batches; number i is of the images from i * batch_size on.
            batch_size: images in a mini-batch; the last one may be short.
            lr: the learning rate.

        Returns:
            The sum of the images' losses, each from before its step, in LOSS_UNITs.
        """

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """The sum of all losses, in LOSS_UNITs, and how many images are told rightly."""

    def epochs(
        self,
        parameters: Tensor,
        orders: NDArray[np.int64],
        batch_size: int,
        lr: float,
        valid: Self,
    ) -> Epochs:
        """`sgd` for each of the orders (E, S), and what `total` finds on `valid` after each."""


class Epochs(NamedTuple):
    """What came of E epochs."""

    totals: NDArray[np.int64]  # (E, 3): sgd's sum of losses; total's on the validation set
    parameters: NDArray[np.float32]  # (E, 785), after each

    @classmethod
    def empty(cls, count: int) -> Self:
        """To be filled."""
        return cls(np.empty((count, 3), np.int64), np.empty((count, PARAMETERS), np.float32))


class HostExamples:
    """On the CPU, as the bytes they came as."""

    def __init__(self, pixels: Pixels, labels: Labels) -> None:
        self.pixels = np.ascontiguousarray(pixels)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """As Examples says, like all that follow."""
        return type(self)(self.pixels[order], self.labels[order])

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, lr: float) -> int:
        """See Examples."""
        return kernels.sgd(self.pixels, self.labels, order, batch_size, parameters.numpy(), lr)

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """See Examples."""
        return kernels.evaluate(self.pixels, self.labels, parameters.numpy())

    def epochs(
        self,
        parameters: Tensor,
        orders: NDArray[np.int64],
        batch_size: int,
        lr: float,
        valid: Self,
    ) -> Epochs:
        """See Examples; without Python's lock."""
        found = Epochs.empty(len(orders))
        images = (self.pixels, self.labels, valid.pixels, valid.labels)
        kernels.epochs(*images, orders, batch_size, parameters.numpy(), lr, *found)
        return found


def examples_on(device: torch.device, pixels: Pixels, labels: Labels) -> Examples:
    """Images (N, 784), 0 = background, 255 = ink, and their labels (N,), 1 = three, on a device."""
    if device.type == "cpu":
        return HostExamples(pixels, labels)
    from mnist37.device import DeviceExamples

    return DeviceExamples.of(pixels, labels, device)


def evaluate(parameters: Tensor, examples: Examples) -> Evaluation:
    """The loss and the accuracy of `parameters` (785,), the weights and the bias."""
    total, correct = examples.total(parameters)
    return Evaluation.of(total, correct, len(examples))


def permutation(count: int, seed: int, *place: int) -> NDArray[np.int64]:
    """A permutation of range(count) that depends on nothing but the arguments.

    The order of random 64-bit keys: numpy promises that the raw numbers of PCG64 stay the same in
    all its versions, as neither its nor torch's own permutations do.

    Args:
        count: how many things to permute.
        seed: 0 to 2**64 - 1.
        place: what the seed is used for; another place, another permutation.
    """
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place)).random_raw(count)
    return np.argsort(keys, kind="stable")


class MiniBatches:
    """The training images in the order of one seed, cut into mini-batches; the last may be short.

    Gathering the images in a new order each epoch would cost as much again as the arithmetic. So
    they are permuted once, in memory, and each epoch permutes the order of the mini-batches.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int) -> None:
        self.examples = examples.permuted(permutation(len(examples), seed))
        self.seed = seed
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which mini-batch comes when in an epoch of a run (from 1)."""
        return permutation(len(self), self.seed, self.batch_size, epoch)

    def count(self, index: int) -> int:
        """How many images mini-batch `index` has."""
        return min(self.batch_size, len(self.examples) - index * self.batch_size)

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], lr: float) -> int:
        """A step on each of these mini-batches; see Examples."""
        return self.examples.sgd(parameters, order, self.batch_size, lr)

    def epochs(self, parameters: Tensor, numbers: range, lr: float, valid: Examples) -> Epochs:
        """The epochs of a run that have these numbers; see Examples."""
        orders = np.stack([self.order(number) for number in numbers])
        return self.examples.epochs(parameters, orders, self.batch_size, lr, valid)


class Sets:
    """The training and the validation images, resident on a device."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self.train = examples_on(device, data.train.pixels, data.train.labels)
        self.valid = examples_on(device, data.valid.pixels, data.valid.labels)
        # A permuted copy is another 10 MB: one is kept for the run and one for the single steps.
        self.mini_batches = lru_cache(maxsize=2)(self._mini_batches)

    def _mini_batches(self, seed: int, batch_size: int) -> MiniBatches:
        return MiniBatches(self.train, seed, batch_size)
