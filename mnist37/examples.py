"""A device, and images with their labels on it: what can be done with them.

Nothing here loads torch: mnist37.host does the arithmetic on the CPU, mnist37.cuda on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mnist37.kernels import Flag, Floats, Labels, Pixels
from mnist37.optimizer import Sgd

PARAMETERS = 784 + 1  # the weights, then the bias

# What a device has of the parameters (785,), float32: an array on the host, a tensor on CUDA.
Parameters: TypeAlias = Any


class Device(Protocol):
    """Where the arithmetic is done; its str is the device's name, as torch prints it."""

    def load_images(self, pixels: Pixels, labels: Labels) -> Examples:
        """Put images (N, 784), 0 = background, 255 = ink, and labels (N,), 1 = three, there."""

    def put(self, values: Floats) -> Parameters:
        """Put parameters (785,) there: a copy."""

    def assign(self, parameters: Parameters, values: Floats) -> None:
        """Change parameters that are there to these values (785,)."""

    def fetch(self, parameters: Parameters) -> Floats:
        """Return a copy (785,) of parameters that are there."""

    def side_stream(self) -> AbstractContextManager[object]:
        """Return a context for work that the device is to do beside the training."""

    def is_lost(self) -> bool:
        """Return whether nothing can be done there any more."""


class Examples(Protocol):
    """Images and their labels on a device."""

    def __len__(self) -> int: ...

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """A copy in this order (N,)."""

    def sgd(
        self, parameters: Parameters, order: NDArray[np.int64], batch_size: int, sgd: Sgd
    ) -> int:
        """One step of SGD on mnist_loss after the other; moves `parameters` (785,) in place.

        Args:
            parameters: the weights, then the bias, on the same device.
            order: which mini-batches; number i is of the images from i * batch_size on.
            batch_size: images in a mini-batch; the last one may be short.
            sgd: the optimizer's settings.

        Returns:
            The sum of the images' losses, each from before its step, in LOSS_UNITs.
        """

    def steps(
        self,
        parameters: Parameters,
        order: NDArray[np.int64],
        batch_size: int,
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        """The steps of `sgd`, each with settings of its own.

        They end with the first that brings the sum of the parameters' absolute values beyond
        `bound`, or to NaN; it is not told of, and `parameters` are then of no use.
        """

    def sum_losses(self, parameters: Parameters) -> tuple[int, int]:
        """The sum of all losses, in LOSS_UNITs, and how many images are told rightly."""

    def train(self, parameters: Parameters, part: TrainingSlice, valid: Self) -> SliceOutput:
        """Takes the steps of a part of a run; moves `parameters` (785,) in place.

        Args:
            parameters: as `sgd`.
            part: which steps.
            valid: the images to look at after each epoch, on the same device.
        """


class StepsOutput(NamedTuple):
    """What came of some steps of SGD."""

    losses: NDArray[np.int64]  # (S,), of each, summed over its images before it, in LOSS_UNITs
    parameters: Floats  # (S, 785), after each

    @classmethod
    def empty(cls, steps: int) -> Self:
        """To be filled."""
        return cls(np.empty(steps, np.int64), np.empty((steps, PARAMETERS), np.float32))

    def truncated(self, steps: int) -> Self:
        """Of so many alone."""
        return type(self)(self.losses[:steps], self.parameters[:steps])


@dataclass(frozen=True)
class TrainingSlice:
    """Some of a run's steps of SGD: the rest of an epoch, and epochs after it."""

    orders: NDArray[np.int64]  # (E, S), which mini-batches in each epoch
    first_step: int  # how many steps of the first of them are done
    loss: int  # summed over the images of those steps, in LOSS_UNITs
    max_steps: int  # how many steps to take at the most
    batch_size: int
    sgd: Sgd
    stop: Flag  # (1,); once it is not 0, which may be at any time, there is no further step


class SliceOutput(NamedTuple):
    """What came of a part of a run."""

    steps: int  # how many were taken
    loss: int  # summed over the images of the epoch that did not end, in LOSS_UNITs
    totals: NDArray[np.int64]  # (E, 3), of each that did: its losses; what `total` finds after it
    parameters: NDArray[np.float32]  # (E, 785), after each

    @classmethod
    def empty(cls, part: TrainingSlice) -> Self:
        """To be filled, with room for all of a part's epochs."""
        room = len(part.orders)
        return cls(0, 0, np.empty((room, 3), np.int64), np.empty((room, PARAMETERS), np.float32))

    def from_lists(self, steps: int, loss: int, epochs: int) -> Self:
        """As filled: so many steps, and so many epochs that ended."""
        return type(self)(steps, loss, self.totals[:epochs], self.parameters[:epochs])
