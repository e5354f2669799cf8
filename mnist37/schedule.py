"""Schedules of the learning rate: how it changes from epoch to epoch of a run.

A rate depends on nothing but the settings and the number of the epoch. So a run that was
interrupted goes on with the rates that it would have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Shape(Enum):
    """The course of the learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass(frozen=True)
class Schedule:
    """The course of a run's learning rate, which is constant within an epoch."""

    shape: Shape = Shape.CONSTANT
    final_rate: float | None = None  # of the last epoch; None for Shape.CONSTANT
    warmup_epochs: int = 0  # in which the rate rises in equal steps to its full value

    def rates(self, learning_rate: float, epochs: range, last: int) -> NDArray[np.float32]:
        """Return the learning rate (E,) of each of these epochs.

        Args:
            learning_rate: the full rate.
            epochs: the numbers of the epochs; a run's first epoch is 1.
            last: the number of the run's last epoch.
        """
        return np.array([self._rate(learning_rate, epoch, last) for epoch in epochs], np.float32)

    def _rate(self, learning_rate: float, epoch: int, last: int) -> float:
        if epoch < self.warmup_epochs:
            return learning_rate * epoch / self.warmup_epochs
        first = max(1, self.warmup_epochs)  # the epoch with the full rate
        if self.final_rate is None or epoch == first:
            return learning_rate
        if epoch == last:
            return self.final_rate
        progress = (epoch - first) / (last - first)  # 0 to 1
        if self.shape is Shape.COSINE:
            progress = (1 - _cos_pi(progress)) / 2
        return learning_rate * (1 - progress) + self.final_rate * progress


def _cos_pi(turns: float) -> float:
    """Return cos(pi * turns) for 0 to 1, with the same bits on every machine.

    The cosines of C libraries differ in their last bit. This one is the Taylor series of
    -sin(pi * (turns - 0.5)): up to x**23 its remainder is below a float64's precision.
    """
    x = np.pi * (turns - 0.5)
    term = total = x
    for power in range(3, 25, 2):
        term *= -x * x / (power * (power - 1))
        total += term
    return -total
