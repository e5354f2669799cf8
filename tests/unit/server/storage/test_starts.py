"""Tests of the starts of the server in its database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mnist37_server.domain.position import Position
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.opening import open_model
from mnist37_server.errors import Exhausted
from mnist37_server.storage.store import Store
from mnist37_server.training.trainer import Trainer
from support.twin import datasets

from mnist37.host import Host


class FullDisk(sqlite3.Connection):
    """A database whose commits fail as long as the disk is full."""

    is_full = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and FullDisk.is_full and self.in_transaction:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        return super().execute(sql, *arguments)


def commit(store: Store, version: int) -> None:
    store.commit([Snapshot(version, bytes(785 * 4), 0, Origin.STEP)], [])


def begin(folder: Path, start: int, last: int | None = None) -> list[Position]:
    """Begin a start, commit the versions up to `last`, and return the starts."""
    store = Store(folder)
    if store.latest() is None:
        commit(store, 0)
    starts = store.begin_start(start)
    store.commit_start()
    newest = store.latest()
    assert newest is not None
    for version in range(newest.version + 1, (last or newest.version) + 1):
        commit(store, version)
    store.close()
    return starts


def test_each_start_is_on_record_with_the_version_at_which_it_began(tmp_path: Path) -> None:
    assert begin(tmp_path, 11, last=5) == [Position(11, 0)]
    assert begin(tmp_path, 22) == [Position(22, 5), Position(11, 0)]
    largest = 2**63 - 1
    assert begin(tmp_path, largest, last=7) == [
        Position(largest, 5),
        Position(22, 5),
        Position(11, 0),
    ]
    assert begin(tmp_path, 44)[:2] == [Position(44, 7), Position(largest, 5)]


def test_the_newest_thousand_are_retained(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, 0)
    for start in range(1, 1010):
        found = store.begin_start(start)
        store.commit_start()
    assert found[0] == Position(1009, 0)
    store.close()
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        rows = connection.execute("SELECT start FROM starts ORDER BY number DESC").fetchall()
    assert rows == [(start,) for start in range(1009, 9, -1)]


def test_a_start_on_a_full_disk_is_stored_by_the_next_commit(tmp_path: Path) -> None:
    begin(tmp_path, 11, last=3)
    FullDisk.is_full = False
    store = Store(tmp_path, FullDisk)
    FullDisk.is_full = True
    assert store.begin_start(22) == [Position(22, 3), Position(11, 0)]
    with pytest.raises(Exhausted):
        store.commit_start()
    with pytest.raises(Exhausted):
        commit(store, 4)
    FullDisk.is_full = False
    commit(store, 4)
    commit(store, 5)
    store.close()
    assert begin(tmp_path, 33) == [Position(33, 5), Position(22, 3), Position(11, 0)]


def test_a_database_without_starts_is_migrated(tmp_path: Path) -> None:
    begin(tmp_path, 11, last=3)
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.executescript("DROP TABLE starts; PRAGMA user_version = 4")
    assert begin(tmp_path, 22, last=4) == [Position(22, 3)]
    assert begin(tmp_path, 33) == [Position(33, 4), Position(22, 3)]


def test_a_server_on_a_full_disk_predicts_and_says_that_its_start_is_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path, 11, last=3)
    FullDisk.is_full = True
    store = Store(tmp_path, FullDisk)
    feed = open_model(store, Trainer(datasets(), Host()))
    FullDisk.is_full = False
    store.close()
    newest, lineage = feed.current
    assert (newest.version, lineage.starts[1:]) == (3, (Position(11, 0),))
    assert "stored with the next commit: the state could not be stored" in caplog.text
