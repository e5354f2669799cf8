"""Positions in the history of a model, and the floors that callers set for their reads.

A version number alone does not say which model is meant: after a backup is restored, the same
number is given a second time. So the owner of a model draws a random id at each start, and commits
it with the version at which it begins. A position is a start and a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

RETAINED_STARTS = 1_000


class Position(NamedTuple):
    """A point in the history of a model."""

    start: int  # the id of the owner's start, 1 to 2**63 - 1
    version: int


class Floor(NamedTuple):
    """The position that the answer to a read must not be before; None means any."""

    start: int | None
    version: int | None


class Standing(Enum):
    """The relation of a server's history to a floor."""

    REACHED = auto()
    BEHIND = auto()  # the floor may be reached later
    UNKNOWN = auto()  # the floor's start is not in the lineage: of another history, or a later one
    LOST = auto()  # the floor is in no history of this model


class Lineage:
    """The starts of an owner, each with the version at which it began.

    Args:
        starts: newest first, at least one; of the present start, `version` is where it began.
    """

    def __init__(self, starts: Sequence[Position]) -> None:
        self.starts = tuple(starts[:RETAINED_STARTS])
        self.start = starts[0].start
        # The last version of each earlier start: the one at which the next start began.
        self._ends = {
            earlier.start: later.version
            for later, earlier in zip(self.starts, self.starts[1:], strict=False)
        }

    def contains(self, position: Position, newest: int) -> bool:
        """Return whether a position is in this history, whose newest version is `newest`."""
        floor = Floor(position.start, position.version)
        return self.standing(floor, newest) is Standing.REACHED

    def has_reached(self, floor: Floor, newest: int) -> bool:
        """Return whether a floor of the present start is reached: a quick answer for most reads."""
        start, version = floor
        return start == self.start and version is not None and version <= newest

    def standing(self, floor: Floor, newest: int) -> Standing:
        """Return how a server with this history stands to a floor.

        Args:
            floor: the floor.
            newest: the newest version of the server.
        """
        start, version = floor
        if start is None or start == self.start:
            return Standing.REACHED if (version or 0) <= newest else Standing.BEHIND
        end = self._ends.get(start)
        if end is None:
            return Standing.UNKNOWN
        return Standing.REACHED if (version or 0) <= end else Standing.LOST
