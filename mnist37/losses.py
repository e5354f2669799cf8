"""How losses are added up, so that a sum comes out the same however it is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Losses are added up as whole numbers of this unit: such a sum is exact, so it is the same in
# whatever order and pieces it is taken, on every device, in a run that was interrupted and resumed.
# As float64 it is exact for up to 16,384 images, as an int64 for 16 million.
LOSS_UNIT = 2.0**-39


def mean_loss(total: int, count: int) -> float:
    """The mean over `count` images whose losses sum up to `total` LOSS_UNITs."""
    return total * LOSS_UNIT / count


def mean_losses(totals: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The same of several sums (N,), each over as many images."""
    return totals * LOSS_UNIT / count


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on some images."""

    loss: float  # mean of mnist_loss
    accuracy: float
    count: int  # of images

    @classmethod
    def of(cls, total: int, correct: int, count: int) -> Self:
        """On `count` images whose losses sum up to `total` LOSS_UNITs, `correct` told rightly."""
        return cls(mean_loss(total, count), correct / count, count)
