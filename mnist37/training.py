"""Training at full speed: the images on their device, and the order in which a run sees them.

What is done to them is mnist37.kernels' on the CPU and mnist37.device's elsewhere; both take the
same steps as mnist37.model does, and the tests hold them against autograd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37 import kernels
from mnist37.data import Data
from mnist37.kernels import Flag, Floats, Labels, Pixels
from mnist37.losses import Evaluation
from mnist37.shuffling import permutation, permutations

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

    def steps(
        self,
        parameters: Tensor,
        order: NDArray[np.int64],
        batch_size: int,
        rates: Floats,
        bound: float,
    ) -> Stepped:
        """The steps of `sgd`, each with a learning rate of its own (S,).

        They end with the first that brings the sum of the parameters' absolute values beyond
        `bound`, or to NaN; it is not told of, and `parameters` are then of no use.
        """

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """The sum of all losses, in LOSS_UNITs, and how many images are told rightly."""

    def train(self, parameters: Tensor, part: Part, valid: Self) -> Trained:
        """Takes the steps of a part of a run; moves `parameters` (785,) in place.

        Args:
            parameters: as `sgd`.
            part: which steps.
            valid: the images to look at after each epoch, on the same device.
        """


class Stepped(NamedTuple):
    """What came of some steps of SGD."""

    losses: NDArray[np.int64]  # (S,), of each, summed over its images before it, in LOSS_UNITs
    parameters: Floats  # (S, 785), after each

    @classmethod
    def empty(cls, steps: int) -> Self:
        """To be filled."""
        return cls(np.empty(steps, np.int64), np.empty((steps, PARAMETERS), np.float32))

    def first(self, steps: int) -> Self:
        """Of so many alone."""
        return type(self)(self.losses[:steps], self.parameters[:steps])


@dataclass(frozen=True)
class Part:
    """Some of a run's steps of SGD: the rest of an epoch, and epochs after it."""

    orders: NDArray[np.int64]  # (E, S), which mini-batches in each epoch
    start: int  # how many steps of the first of them are done
    loss: int  # summed over the images of those steps, in LOSS_UNITs
    most: int  # how many steps to take at the most
    batch_size: int
    learning_rate: float
    stop: Flag  # (1,); once it is not 0, which may be at any time, there is no further step


class Trained(NamedTuple):
    """What came of a part of a run."""

    steps: int  # how many were taken
    loss: int  # summed over the images of the epoch that did not end, in LOSS_UNITs
    totals: NDArray[np.int64]  # (E, 3), of each that did: its losses; what `total` finds after it
    parameters: NDArray[np.float32]  # (E, 785), after each

    @classmethod
    def empty(cls, part: Part) -> Self:
        """To be filled, with room for all of a part's epochs."""
        room = len(part.orders)
        return cls(0, 0, np.empty((room, 3), np.int64), np.empty((room, PARAMETERS), np.float32))

    def of(self, steps: int, loss: int, epochs: int) -> Self:
        """As filled: so many steps, and so many epochs that ended."""
        return type(self)(steps, loss, self.totals[:epochs], self.parameters[:epochs])


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

    def steps(
        self,
        parameters: Tensor,
        order: NDArray[np.int64],
        batch_size: int,
        rates: Floats,
        bound: float,
    ) -> Stepped:
        """See Examples; without Python's lock."""
        found = Stepped.empty(len(order))
        images = (self.pixels, self.labels)
        taken = kernels.steps(*images, order, batch_size, parameters.numpy(), rates, bound, *found)
        return found.first(taken)

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """See Examples."""
        return kernels.evaluate(self.pixels, self.labels, parameters.numpy())

    def train(self, parameters: Tensor, part: Part, valid: Self) -> Trained:
        """See Examples; without Python's lock."""
        found = Trained.empty(part)
        images = (self.pixels, self.labels, valid.pixels, valid.labels)
        steps, loss = kernels.train(
            *images,
            part.orders,
            part.start,
            part.most,
            part.loss,
            part.batch_size,
            parameters.numpy(),
            part.learning_rate,
            part.stop,
            found.totals,
            found.parameters,
        )
        return found.of(steps, loss, (part.start + steps) // part.orders.shape[1])


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


class MiniBatches:
    """The training images in the order of one seed, cut into mini-batches; the last may be short.

    Gathering the images in a new order each epoch would cost as much again as the arithmetic. So
    they are permuted once, in memory, and each epoch permutes the order of the mini-batches.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int) -> None:
        self.examples = examples.permuted(permutation(len(examples), seed))
        self.seed = seed
        self.batch_size = batch_size
        self._batches = math.ceil(len(examples) / batch_size)

    def __len__(self) -> int:
        return self._batches

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which mini-batch comes when in an epoch of a run (from 1)."""
        return permutation(len(self), self.seed, self.batch_size, epoch)

    def orders(self, epochs: range) -> NDArray[np.int64]:
        """The same for some epochs (E, S)."""
        return permutations(len(self), self.seed, self.batch_size, epochs)

    def count(self, number: int) -> int:
        """How many images a mini-batch has."""
        return min(self.batch_size, len(self.examples) - number * self.batch_size)

    def counts(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same of several."""
        return np.minimum(self.batch_size, len(self.examples) - order * self.batch_size)

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], lr: float) -> int:
        """A step on each of these mini-batches; see Examples."""
        return self.examples.sgd(parameters, order, self.batch_size, lr)

    def steps(
        self, parameters: Tensor, order: NDArray[np.int64], rates: Floats, bound: float
    ) -> Stepped:
        """The same, each with a learning rate of its own (S,); see Examples."""
        return self.examples.steps(parameters, order, self.batch_size, rates, bound)


class Sets:
    """The training and the validation images, resident on a device."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self.train = examples_on(device, data.train.pixels, data.train.labels)
        self.valid = examples_on(device, data.valid.pixels, data.valid.labels)
        # A permuted copy is another 10 MB: one is kept for the run and one for the single steps.
        self.mini_batches = lru_cache(maxsize=2)(self._mini_batches)

    def _mini_batches(self, seed: int, batch_size: int) -> MiniBatches:
        return MiniBatches(self.train, seed, batch_size)
