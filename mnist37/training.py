"""Training at full speed: the images on their device, and the order in which a run reads them.

mnist37.kernels does the arithmetic on the CPU, mnist37.cuda_kernels on CUDA. Both take the same
steps as mnist37.model, and the tests compare them with autograd.
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
    """Return the evaluation of `parameters` (785,), the weights, then the bias."""
    return Evaluation.of(examples.sum_losses(parameters), len(examples))


class MiniBatches:
    """The training images in the order of one seed, cut into mini-batches; the last may be short.

    Gathering the images in a new order each epoch would cost as much again as the arithmetic. So
    the constructor permutes the images once, in memory, and each epoch permutes the mini-batches.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int) -> None:
        self.examples = examples.permuted(permutation(len(examples), seed))
        self.seed = seed
        self.batch_size = batch_size
        self._batches = math.ceil(len(examples) / batch_size)

    def __len__(self) -> int:
        return self._batches

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order (S,) of the mini-batches in an epoch of a run; epochs count from 1."""
        return permutation(len(self), self.seed, self.batch_size, epoch)

    def orders(self, epochs: range) -> NDArray[np.int64]:
        """Return the orders (E, S) of the mini-batches in consecutive epochs of a run."""
        return permutations(len(self), self.seed, self.batch_size, epochs)

    def count(self, number: int) -> int:
        """Return how many images mini-batch `number` has."""
        return min(self.batch_size, len(self.examples) - number * self.batch_size)

    def counts(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many images each mini-batch in `order` (S,) has."""
        return np.minimum(self.batch_size, len(self.examples) - order * self.batch_size)

    def sgd(self, parameters: Parameters, order: NDArray[np.int64], sgd: Sgd) -> int:
        """Take one step of SGD for each mini-batch in `order`, one after the other.

        Args:
            parameters: (785,), on the images' device; changed in place.
            order: (S,), indices of mini-batches.
            sgd: the optimizer's settings.

        Returns:
            The sum of the images' losses in LOSS_UNITs. A loss is computed before its step.
        """
        return self.examples.sgd(parameters, order, self.batch_size, sgd)

    def steps(
        self,
        parameters: Parameters,
        order: NDArray[np.int64],
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """Take steps of SGD, each with its own settings, and return each step's result.

        Args:
            parameters: (785,), on the images' device; changed in place.
            order: (S,), indices of mini-batches.
            settings: (S,), the optimizer's settings for each step.
            bound: the maximum of the sum of the parameters' absolute values. After a step that
                exceeds it no further step is taken; Examples.steps has the details.
        """
        return self.examples.steps(parameters, order, self.batch_size, settings, bound)


class Datasets:
    """The training and the validation images, resident on a device."""

    def __init__(self, data: Data, device: Device) -> None:
        self.train = device.load_images(data.train.pixels, data.train.labels)
        self.valid = device.load_images(data.valid.pixels, data.valid.labels)
        # A permuted copy takes another 10 MB: the cache keeps one for a run and one for Steps.
        self.mini_batches = lru_cache(maxsize=2)(self._mini_batches)

    def _mini_batches(self, seed: int, batch_size: int) -> MiniBatches:
        return MiniBatches(self.train, seed, batch_size)
