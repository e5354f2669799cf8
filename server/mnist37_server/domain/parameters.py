"""How large parameters may be, so that no sum over them overflows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels

ABSOLUTE_SUM_MAX = 3e38  # what an image may score, so that no sum is beyond float32


def absolute_sum(parameters: NDArray[np.float32]) -> float:
    """Return the highest score that an image can have, or NaN.

    Up to ABSOLUTE_SUM_MAX no partial sum of a score overflows float32.
    """
    return float(absolute_sums(parameters[None])[0])


def absolute_sums(parameters: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same (N,) of several (N, 785)."""
    found = np.empty(len(parameters), np.float64)
    kernels.absolute_sums(parameters, found)
    return found
