"""Tests of a server and its front that are killed while clients read and write through it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from stress import front_kills
from support.fronted import missing


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_no_read_fails_and_each_write_happens_once(tmp_path: Path) -> None:
    counts = front_kills.run(tmp_path, 1, seed=time.time_ns() % 2**32, rest=(0.2, 0.6))
    for name in ("front", "owner", "both"):
        assert counts[f"kills of {name}"] >= 1
    assert counts["predict_one"] > 20
    assert counts["writes"] > 3
