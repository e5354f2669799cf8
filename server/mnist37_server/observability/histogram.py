"""A histogram with cumulative buckets, as Prometheus defines it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """The number of values up to each of several bounds, and the sum of all values.

    It has no lock: the caller ensures that one thread at a time adds values.

    Args:
        bounds: ascending upper bounds; a last bucket without a bound is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (bound, how many values are at most that) for each bound; infinity is the last."""
        return list(zip([*self._bounds, float("inf")], accumulate(self._counts), strict=True))
