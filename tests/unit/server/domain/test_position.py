"""Tests of positions: which of them are in the history of an owner."""

from __future__ import annotations

import pytest
from mnist37_server.domain.position import RETAINED_STARTS, Floor, Lineage, Position, Standing

# Start 11 began at version 0, start 22 at version 5, and the present one, 33, at version 9.
LINEAGE = Lineage([Position(33, 9), Position(22, 5), Position(11, 0)])
NEWEST = 12


@pytest.mark.parametrize(
    ("start", "version", "standing"),
    [
        (33, 12, Standing.REACHED),
        (33, 13, Standing.BEHIND),
        (33, None, Standing.REACHED),
        (None, 12, Standing.REACHED),
        (None, 13, Standing.BEHIND),
        (22, 9, Standing.REACHED),
        (22, 10, Standing.LOST),  # a backup of version 9 was restored
        (22, None, Standing.REACHED),
        (11, 5, Standing.REACHED),
        (11, 6, Standing.LOST),
        (44, 0, Standing.UNKNOWN),
        (44, None, Standing.UNKNOWN),
        (0, 0, Standing.UNKNOWN),
    ],
)
def test_a_floor(start: int | None, version: int | None, standing: Standing) -> None:
    assert LINEAGE.standing(Floor(start, version), NEWEST) is standing


def test_a_position_is_in_the_history_if_it_is_reached() -> None:
    assert LINEAGE.contains(Position(22, 9), NEWEST)
    assert LINEAGE.contains(Position(33, 12), NEWEST)
    assert not LINEAGE.contains(Position(33, 13), NEWEST)
    assert not LINEAGE.contains(Position(22, 10), NEWEST)
    assert not LINEAGE.contains(Position(44, 0), NEWEST)


def test_the_oldest_starts_are_forgotten() -> None:
    starts = [Position(number, number) for number in range(RETAINED_STARTS + 1, 0, -1)]
    lineage = Lineage(starts)
    assert len(lineage.starts) == RETAINED_STARTS
    assert lineage.standing(Floor(2, 3), 2000) is Standing.REACHED
    assert lineage.standing(Floor(1, 1), 2000) is Standing.UNKNOWN
