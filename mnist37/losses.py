"""Exact sums of losses, which do not depend on the order or the pieces of the computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Losses are added up as whole numbers of this unit. Such a sum is exact. So it is the same in any
# order, in any pieces, on every device, and in a run that was interrupted and resumed.
# A float64 holds it exactly for up to 16,384 images, an int64 for up to 16 million.
LOSS_UNIT = 2.0**-39


def mean_loss(total: int, count: int) -> float:
    """Return the mean over `count` images whose losses sum up to `total` LOSS_UNITs."""
    return total * LOSS_UNIT / count


def mean_losses(totals: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the means over `count` images each whose losses sum up to `totals` (N,) LOSS_UNITs."""
    return totals * LOSS_UNIT / count


@dataclass(frozen=True)
class Evaluation:
    """The loss and the accuracy of a model on a set of images."""

    loss: float  # mean of mnist_loss
    accuracy: float
    count: int  # of images

    @classmethod
    def of(cls, total: int, correct: int, count: int) -> Self:
        """Return the means over `count` images from their sums.

        Args:
            total: the sum of the losses, in LOSS_UNITs.
            correct: how many images are classified correctly.
            count: how many images there are.
        """
        return cls(mean_loss(total, count), correct / count, count)
