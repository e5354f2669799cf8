"""The limit on the size of parameters, below which no score overflows float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels

ABSOLUTE_SUM_MAX = 3e38  # a little below the largest float32, 3.4e38


def absolute_sum(parameters: NDArray[np.float32]) -> float:
    """Return the sum of the absolute values of parameters (785,), or NaN if one of them is NaN.

    A pixel counts from 0 to 1, so this sum bounds the score of every image and each of its partial
    sums. If it is at most ABSOLUTE_SUM_MAX, none of them overflows float32.
    """
    return float(absolute_sums(parameters[None])[0])


def absolute_sums(parameters: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sums (N,) of the absolute values of N parameter vectors (N, 785)."""
    sums = np.empty(len(parameters), np.float64)
    kernels.absolute_sums(parameters, sums)
    return sums
