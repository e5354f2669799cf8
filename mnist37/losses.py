"""Exact sums of losses, which do not depend on the order or the pieces of the computation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

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


class LossSums(NamedTuple):
    """The sums of a model's losses and of its correct classifications on a set of images."""

    losses: int  # in LOSS_UNITs
    threes_right: int  # threes that are classified correctly
    sevens_right: int
    threes: int  # all threes


@dataclass(frozen=True)
class Evaluation:
    """The loss, the accuracy and the confusion matrix of a model on a set of images."""

    loss: float  # mean of mnist_loss
    accuracy: float
    count: int  # of images
    threes_right: int
    threes_called_sevens: int
    sevens_right: int
    sevens_called_threes: int

    @classmethod
    def of(cls, sums: LossSums, count: int) -> Self:
        """Return the evaluation of `count` images from their sums."""
        return cls(
            mean_loss(sums.losses, count),
            (sums.threes_right + sums.sevens_right) / count,
            count,
            sums.threes_right,
            sums.threes - sums.threes_right,
            sums.sevens_right,
            count - sums.threes - sums.sevens_right,
        )
