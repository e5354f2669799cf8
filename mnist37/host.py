"""The images on the host, and the kernels of mnist37.kernels, which run there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels
from mnist37.examples import SliceOutput, StepsOutput, TrainingSlice
from mnist37.kernels import Floats, Labels, Pixels
from mnist37.optimizer import Sgd


class Host:
    """The CPU, whose memory holds parameters as arrays."""

    def __str__(self) -> str:
        return "cpu"

    def load_images(self, pixels: Pixels, labels: Labels) -> HostExamples:
        """See mnist37.examples.Device, as for what follows."""
        return HostExamples(pixels, labels)

    def put(self, values: Floats) -> Floats:
        """See Device."""
        return np.array(values, np.float32)

    def assign(self, parameters: Floats, values: Floats) -> None:
        """See Device."""
        parameters[:] = values

    def fetch(self, parameters: Floats) -> Floats:
        """See Device."""
        return parameters.copy()

    def side_stream(self) -> AbstractContextManager[object]:
        """See Device; a kernel runs without Python's lock anyway."""
        return nullcontext()

    def is_lost(self) -> bool:
        """See Device."""
        return False


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

    def sgd(self, parameters: Floats, order: NDArray[np.int64], batch_size: int, sgd: Sgd) -> int:
        """See Examples."""
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
        """See Examples; without Python's lock."""
        found = StepsOutput.empty(len(order))
        images = (self.pixels, self.labels)
        rates = np.array([sgd.learning_rate for sgd in settings], np.float32)
        taken = kernels.steps(*images, order, batch_size, parameters, rates, bound, *found)
        return found.truncated(taken)

    def sum_losses(self, parameters: Floats) -> tuple[int, int]:
        """See Examples."""
        return kernels.evaluate(self.pixels, self.labels, parameters)

    def train(self, parameters: Floats, part: TrainingSlice, valid: Self) -> SliceOutput:
        """See Examples; without Python's lock."""
        found = SliceOutput.empty(part)
        images = (self.pixels, self.labels, valid.pixels, valid.labels)
        steps, loss = kernels.train(
            *images,
            part.orders,
            part.first_step,
            part.max_steps,
            part.loss,
            part.batch_size,
            parameters,
            part.sgd.learning_rate,
            part.stop,
            found.totals,
            found.parameters,
        )
        return found.from_lists(steps, loss, (part.first_step + steps) // part.orders.shape[1])
