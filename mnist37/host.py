"""The CPU as a device: it keeps the images on the host and runs the kernels of mnist37.kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels
from mnist37.examples import SliceOutput, StepsOutput, TrainingSlice
from mnist37.kernels import Floats, Labels, Pixels
from mnist37.losses import LossSums
from mnist37.optimizer import Sgd


class Host:
    """The CPU, whose memory holds parameters as arrays."""

    def __str__(self) -> str:
        return "cpu"

    def load_images(self, pixels: Pixels, labels: Labels) -> HostExamples:
        """Return the images (N, 784) and their labels (N,), ready for the kernels."""
        return HostExamples(pixels, labels)

    def put(self, values: Floats) -> Floats:
        """Return a copy of the parameters `values` (785,)."""
        return np.array(values, np.float32)

    def assign(self, parameters: Floats, values: Floats) -> None:
        """Overwrite `parameters` with `values` (785,)."""
        parameters[:] = values

    def fetch(self, parameters: Floats) -> Floats:
        """Return a copy (785,) of `parameters`."""
        return parameters.copy()

    def side_stream(self) -> AbstractContextManager[object]:
        """Return a context that does nothing: a kernel runs without Python's lock anyway."""
        return nullcontext()

    def is_lost(self) -> bool:
        """Return False: a process never loses the CPU."""
        return False


class HostExamples:
    """Images in the host's memory, kept as bytes."""

    def __init__(self, pixels: Pixels, labels: Labels) -> None:
        self.pixels = np.ascontiguousarray(pixels)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """Return a copy of the images and labels, permuted by `order` (N,)."""
        return type(self)(self.pixels[order], self.labels[order])

    def sgd(self, parameters: Floats, order: NDArray[np.int64], batch_size: int, sgd: Sgd) -> int:
        """Take a step of SGD for each mini-batch; return the sum of the losses in LOSS_UNITs."""
        rate = sgd.learning_rate
        return kernels.sgd(self.pixels, self.labels, order, batch_size, parameters, rate)

    def steps(
        self,
        parameters: Floats,
        order: NDArray[np.int64],
        batch_size: int,
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """Take steps of SGD, each with its own settings, in one kernel without Python's lock."""
        output = StepsOutput.empty(len(order))
        images = (self.pixels, self.labels)
        rates = np.array([sgd.learning_rate for sgd in settings], np.float32)
        steps = kernels.steps(*images, order, batch_size, parameters, rates, bound, *output)
        return output.truncated(steps)

    def sum_losses(self, parameters: Floats) -> LossSums:
        """Return the sums of the losses and of the correct classifications of all images."""
        return LossSums(*kernels.evaluate(self.pixels, self.labels, parameters))

    def train(self, parameters: Floats, training_slice: TrainingSlice, valid: Self) -> SliceOutput:
        """Take the steps of a slice of a run, and evaluate after each epoch, in one kernel.

        The kernel runs without Python's lock.
        """
        output = SliceOutput.empty(training_slice)
        images = (self.pixels, self.labels, valid.pixels, valid.labels)
        steps, loss = kernels.train(
            *images,
            training_slice.orders,
            training_slice.first_step,
            training_slice.max_steps,
            training_slice.loss,
            training_slice.batch_size,
            parameters,
            training_slice.rates,
            training_slice.stop,
            output.totals,
            output.parameters,
        )
        epochs = (training_slice.first_step + steps) // training_slice.orders.shape[1]
        return output.truncated(steps, loss, epochs)
