"""Training at full speed: the images on their device, and the order in which a run sees them.

What is done to them is mnist37.kernels' on the CPU and mnist37.cuda_kernels' elsewhere; both take
the same steps as mnist37.model does, and the tests hold them against autograd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mnist37.data import Data
from mnist37.examples import Device, Examples, Parameters, StepsOutput
from mnist37.losses import Evaluation
from mnist37.optimizer import Sgd
from mnist37.shuffling import permutation, permutations


def evaluate(parameters: Parameters, examples: Examples) -> Evaluation:
    """The loss and the accuracy of `parameters` (785,), the weights and the bias."""
    total, correct = examples.sum_losses(parameters)
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

    def sgd(self, parameters: Parameters, order: NDArray[np.int64], sgd: Sgd) -> int:
        """A step on each of these mini-batches; see Examples."""
        return self.examples.sgd(parameters, order, self.batch_size, sgd)

    def steps(
        self,
        parameters: Parameters,
        order: NDArray[np.int64],
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """The same, each with settings of its own; see Examples."""
        return self.examples.steps(parameters, order, self.batch_size, settings, bound)


class Datasets:
    """The training and the validation images, resident on a device."""

    def __init__(self, data: Data, device: Device) -> None:
        self.train = device.load_images(data.train.pixels, data.train.labels)
        self.valid = device.load_images(data.valid.pixels, data.valid.labels)
        # A permuted copy is another 10 MB: one is kept for the run and one for the single steps.
        self.mini_batches = lru_cache(maxsize=2)(self._mini_batches)

    def _mini_batches(self, seed: int, batch_size: int) -> MiniBatches:
        return MiniBatches(self.train, seed, batch_size)
