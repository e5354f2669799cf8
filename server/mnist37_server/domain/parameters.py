"""How large parameters may be, so that no sum over them overflows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist37 import kernels

MOST_INK = 3e38  # what an image may score, so that no sum is beyond float32


def magnitude(parameters: NDArray[np.float32]) -> float:
    """The most that any image can score, or NaN; up to MOST_INK no partial sum overflows."""
    return float(magnitudes(parameters[None])[0])


def magnitudes(parameters: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same (N,) of several (N, 785)."""
    found = np.empty(len(parameters), np.float64)
    kernels.magnitude(parameters, found)
    return found
