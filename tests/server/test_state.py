"""The durable state: what is committed is found again, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mnist37_server.errors import CannotStart, Exhausted
from mnist37_server.snapshot import Snapshot
from mnist37_server.state import KEPT_REQUESTS, KEPT_VERSIONS, Record, RunPlace, State


def snapshot(version: int, place: int = 0) -> Snapshot:
    parameters = np.random.default_rng(version).standard_normal(785).astype(np.float32)
    return Snapshot(version, parameters, place)


def same(a: Snapshot | None, b: Snapshot) -> bool:
    return a is not None and (a.version, a.place, a.digest) == (b.version, b.place, b.digest)


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "disk" else None


@pytest.fixture
def state(folder: Path | None) -> Iterator[State]:
    state = State(folder)
    yield state
    state.close()


def test_a_new_state_is_empty(state: State) -> None:
    assert state.latest() is None
    assert state.version(0) is None
    assert state.version(2**64 - 1) is None
    assert state.find("a") is None


def test_what_is_committed_is_found(state: State) -> None:
    step = Record("a", b"x" * 32, 1, (0.1, 1))
    run = Record("b", b"y" * 32, 2, None, RunPlace(70, 123456789, 5000, 0.1))
    state.commit([snapshot(1, 5), snapshot(2, 6)], [step, run])
    assert same(state.latest(), snapshot(2, 6))
    assert same(state.version(1), snapshot(1, 5))
    assert state.find("a") == step
    assert state.find("b") == run


def test_a_finished_run_replaces_what_was_remembered_of_it(state: State) -> None:
    state.commit([snapshot(2)], [Record("b", b"y", 2, None, RunPlace(70, 1, 1, 0.1))])
    done = Record("b", b"y", 9, (1, 1, 0.1, 0.2, 0.9, 9, 0.3))
    state.commit([snapshot(9)], [done])
    assert state.find("b") == done


def test_floats_come_back_to_the_bit(state: State) -> None:
    answer = (0.1 + 0.2, 5e-324, 1 / 3)
    state.commit([snapshot(1)], [Record("a", b"x", 1, answer)])
    found = state.find("a")
    assert found is not None
    assert found.answer == answer


def test_a_commit_is_all_or_nothing(state: State) -> None:
    state.commit([snapshot(1)], [])
    with pytest.raises(Exhausted, match="nothing is applied"):
        state.commit([snapshot(2), snapshot(1)], [Record("a", b"x", 2, (0.1, 2))])
    assert same(state.latest(), snapshot(1))
    assert state.find("a") is None
    state.commit([snapshot(2)], [])
    assert same(state.latest(), snapshot(2))


def test_it_survives_the_process(tmp_path: Path) -> None:
    for version in range(3):
        state = State(tmp_path)
        if version:
            assert same(state.latest(), snapshot(version - 1))
        state.commit([snapshot(version)], [Record(str(version), b"x", version, (0.5, version))])
        state.close()
    state = State(tmp_path)
    assert [state.find(str(v)) is not None for v in range(4)] == [True, True, True, False]
    state.close()


def test_the_newest_versions_are_kept(state: State) -> None:
    for start in range(0, KEPT_VERSIONS + 500, 100):
        state.commit([snapshot(version) for version in range(start, start + 100)], [])
    last = KEPT_VERSIONS + 499
    assert same(state.version(last), snapshot(last))
    assert same(state.version(500), snapshot(500))
    assert state.version(499) is None


def test_ids_are_kept_a_day_and_the_newest_longer(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(ids: range, now: float) -> None:
        monkeypatch.setattr("time.time", lambda: now)
        state.commit([], [Record(str(i), b"x", 0, (0.0, 0)) for i in ids])

    commit(range(100), 0)
    commit(range(100, KEPT_REQUESTS + 50), 23 * 3600)
    assert state.find("0") is not None, "older than the newest 10,000, but not a day old"
    commit(range(KEPT_REQUESTS + 50, KEPT_REQUESTS + 51), 25 * 3600)
    assert state.find("0") is None
    assert state.find("51") is not None, "older than a day, but of the newest 10,000"


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    state = State(tmp_path)
    code = "import sys, pathlib, mnist37_server.state as s; s.State(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"is in use by another server, process {os.getpid()}" in second.stderr
    state.close()
    assert subprocess.run(command, check=False).returncode == 0


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="--state: cannot write to"):
        State(tmp_path / "file")
    with pytest.raises(CannotStart, match="--state: cannot write to"):
        State(tmp_path / "file" / "below")


def test_a_database_of_another_release_or_none_is_refused(tmp_path: Path) -> None:
    State(tmp_path).close()
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CannotStart, match="schema 99; this release reads 1"):
        State(tmp_path)
    (tmp_path / "mnist37.sqlite3").write_bytes(json.dumps("no database at all").encode() * 500)
    with pytest.raises(CannotStart, match="cannot be used: file is not a database"):
        State(tmp_path)
