"""Values counted by their size, as Prometheus' histograms have it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """How many values there were up to each of some bounds, and their sum.

    Whoever adds values sees to it that no other thread does meanwhile.

    Args:
        bounds: ascending; above the last one there is no bound.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound, infinity being the last, with how many values were at most that."""
        return list(zip([*self._bounds, float("inf")], accumulate(self._counts), strict=True))
