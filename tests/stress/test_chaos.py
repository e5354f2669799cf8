"""Tests of followers under faults: no answer breaks a promise, and a broken promise is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from stress.chaos import run as chaos
from stress.chaos.book import Violation
from support.fronted import missing

MUTANT = str(Path(__file__).parent / "chaos" / "mutant.py")


def test_every_answer_is_what_was_written(tmp_path: Path) -> None:
    counts = chaos.run(tmp_path, seconds=1, seed=37)
    assert all(counts[fault.__name__] >= 1 for fault in chaos.FAULTS)
    assert counts["checked"] > 1_000
    assert counts["HISTORY_LOST"] > 0


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_front_answers_what_was_written(tmp_path: Path) -> None:
    faults = [
        chaos.kill_front,
        chaos.kill_owner,
        chaos.restore_backup,
        chaos.pause_front,
        chaos.second_owner,
    ]
    counts = chaos.run(tmp_path, seconds=1, seed=37, faults=faults, has_front=True)
    assert counts["checked"] > 500


@pytest.mark.parametrize(
    "broken", ["floor-ignored", "old-snapshot-kept", "old-versions-kept", "older-version-applied"]
)
def test_a_broken_promise_is_noticed(tmp_path: Path, broken: str) -> None:
    faults = [chaos.restore_backup, chaos.kill_owner]
    with pytest.raises(Violation):
        chaos.run(tmp_path, 20, seed=37, faults=faults, command=(MUTANT, broken))
