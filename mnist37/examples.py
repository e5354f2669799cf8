"""The interface of a device, and of images with their labels on it.

This module does not load torch. mnist37.host does the arithmetic on the CPU, mnist37.cuda on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist37.kernels import Flag, Floats, Labels, Pixels
from mnist37.losses import LossSums
from mnist37.optimizer import Sgd

PARAMETERS = 784 + 1  # the weights, then the bias

# The parameters (785,), float32, in a device's memory: an array on the host, a tensor on CUDA.
Parameters: TypeAlias = Any


class Device(Protocol):
    """A device that does the arithmetic; its str is the device's name, as torch prints it."""

    def load_images(self, pixels: Pixels, labels: Labels) -> Examples:
        """Copy images and their labels to the device.

        Args:
            pixels: (N, 784), 0 = background, 255 = ink.
            labels: (N,), 1 = three, 0 = seven.
        """

    def put(self, values: Floats) -> Parameters:
        """Return a copy on the device of the parameters `values` (785,)."""

    def assign(self, parameters: Parameters, values: Floats) -> None:
        """Overwrite parameters on the device with `values` (785,)."""

    def fetch(self, parameters: Parameters) -> Floats:
        """Return a copy (785,) on the host of parameters on the device."""

    def side_stream(self) -> AbstractContextManager[object]:
        """Return a context whose work the device does beside the training."""

    def is_lost(self) -> bool:
        """Return whether this process cannot use the device any more."""


class Examples(Protocol):
    """Images and their labels on a device."""

    def __len__(self) -> int: ...

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """Return a copy of the images and labels, permuted by `order` (N,)."""

    def sgd(
        self, parameters: Parameters, order: NDArray[np.int64], batch_size: int, sgd: Sgd
    ) -> int:
        """Take one step of SGD on mnist_loss for each mini-batch in `order`, one after the other.

        Args:
            parameters: (785,), the weights, then the bias, on this device; changed in place.
            order: (S,), indices of mini-batches; number i starts with image i * batch_size.
            batch_size: images in a mini-batch; the last one may be short.
            sgd: the optimizer's settings.

        Returns:
            The sum of the images' losses in LOSS_UNITs. A loss is computed before its step.
        """

    def steps(
        self,
        parameters: Parameters,
        order: NDArray[np.int64],
        batch_size: int,
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """Take steps of SGD like `sgd`, each with its own settings, and return each step's result.

        The steps stop after the first one that brings the sum of the parameters' absolute values
        above `bound`, or to NaN. The output leaves that step out, and the contents of `parameters`
        are then invalid.

        Args:
            parameters: (785,), the weights, then the bias, on this device; changed in place.
            order: (S,), indices of mini-batches.
            batch_size: images in a mini-batch; the last one may be short.
            settings: (S,), the optimizer's settings for each step.
            bound: the maximum of the sum of the parameters' absolute values.
        """

    def sum_losses(self, parameters: Parameters) -> LossSums:
        """Return the sums of the losses and of the correct classifications of all images."""

    def train(
        self, parameters: Parameters, training_slice: TrainingSlice, valid: Self
    ) -> SliceOutput:
        """Take the steps of a slice of a run, and evaluate after each epoch.

        Args:
            parameters: (785,), the weights, then the bias, on this device; changed in place.
            training_slice: the steps to take.
            valid: the images to evaluate on, on this device.
        """


class StepsOutput(NamedTuple):
    """The losses and the parameters of consecutive steps of SGD."""

    losses: NDArray[np.int64]  # (S,), the sum over a step's images, before it, in LOSS_UNITs
    parameters: Floats  # (S, 785), after each step

    @classmethod
    def empty(cls, steps: int) -> Self:
        """Return an output with uninitialized arrays for `steps` steps."""
        return cls(np.empty(steps, np.int64), np.empty((steps, PARAMETERS), np.float32))

    def truncated(self, steps: int) -> Self:
        """Return the output of the first `steps` steps only."""
        return type(self)(self.losses[:steps], self.parameters[:steps])


@dataclass(frozen=True)
class TrainingSlice:
    """Consecutive steps of a run: the rest of an epoch, and epochs after it."""

    orders: NDArray[np.int64]  # (E, S), the indices of the mini-batches in each epoch
    first_step: int  # how many steps of the first epoch are already done
    loss: int  # the sum over the images of the steps already done, in LOSS_UNITs
    max_steps: int  # how many steps to take at most
    batch_size: int
    rates: Floats  # (E,), the learning rate of each epoch
    stop: Flag  # (1,); another thread may set it at any time; while it is not 0, no step starts


class SliceOutput(NamedTuple):
    """The result of a slice of a run: its steps, and each epoch that it completed."""

    steps: int  # how many were taken
    loss: int  # the sum over the images of the incomplete last epoch, in LOSS_UNITs
    # (E, 3), for each completed epoch: the sum of its training losses in LOSS_UNITs, then the sum
    # of the validation losses after it, and how many of these images are classified correctly.
    totals: NDArray[np.int64]
    parameters: NDArray[np.float32]  # (E, 785), after each completed epoch

    @classmethod
    def empty(cls, training_slice: TrainingSlice) -> Self:
        """Return an output with uninitialized arrays for all epochs of `training_slice`."""
        epochs = len(training_slice.orders)
        totals = np.empty((epochs, 3), np.int64)
        return cls(0, 0, totals, np.empty((epochs, PARAMETERS), np.float32))

    def truncated(self, steps: int, loss: int, epochs: int) -> Self:
        """Return the output with `steps` and `loss` set and its arrays cut to the completed epochs.

        Args:
            steps: how many steps were taken.
            loss: the sum over the images of the incomplete last epoch, in LOSS_UNITs.
            epochs: how many epochs were completed.
        """
        return type(self)(steps, loss, self.totals[:epochs], self.parameters[:epochs])
