"""Tests of the durable store: committed data is found again, and no other data."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.records import RequestRecord, RunCheckpoint, RunRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import CannotStart, Exhausted
from mnist37_server.storage.store import Store
from mnist37_server.storage.tables.request_log import FORGET_INTERVAL, RETAINED_REQUESTS
from mnist37_server.storage.tables.rows import train_to_json
from mnist37_server.storage.tables.run_log import RETAINED_CURVES
from mnist37_server.storage.tables.version_slots import RETAINED_VERSIONS

from mnist37.optimizer import Sgd


def snapshot(version: int, place: int = 0) -> Snapshot:
    parameters = np.random.default_rng(version).standard_normal(785).astype(np.float32)
    return Snapshot(version, parameters.tobytes(), place, Origin.TRAIN, 7)


def is_same(a: Snapshot | None, b: Snapshot) -> bool:
    return a is not None and (a.version, a.batch_cursor, a.digest) == (
        b.version,
        b.batch_cursor,
        b.digest,
    )


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "disk" else None


@pytest.fixture
def store(folder: Path | None) -> Iterator[Store]:
    store = Store(folder)
    yield store
    store.close()


def test_a_new_state_is_empty(store: Store) -> None:
    assert store.latest() is None
    assert store.version(0) is None
    assert store.version(2**64 - 1) is None
    assert store.find("a") is None


def test_committed_data_is_found(store: Store) -> None:
    step = RequestRecord("a", b"x" * 32, 1, (0.1, 1))
    run = RequestRecord("b", b"y" * 32, 2, None, RunCheckpoint(70, 123456789, 0.1, 7, 1.5e9))
    store.commit([snapshot(1, 5), snapshot(2, 6)], [step, run])
    assert is_same(store.latest(), snapshot(2, 6))
    assert is_same(store.version(1), snapshot(1, 5))
    assert store.find("a") == step
    assert store.find("b") == run


def test_the_record_of_a_finished_run_replaces_the_earlier_one(store: Store) -> None:
    store.commit(
        [snapshot(2)], [RequestRecord("b", b"y", 2, None, RunCheckpoint(70, 1, 0.1, 7, 1.5e9))]
    )
    done = RequestRecord("b", b"y", 9, (1, 1, 0.1, 0.2, 0.9, 9, 0.3))
    store.commit([snapshot(9)], [done])
    assert store.find("b") == done


def test_floats_come_back_to_the_bit(store: Store) -> None:
    answer = (0.1 + 0.2, 5e-324, 1 / 3)
    store.commit([snapshot(1)], [RequestRecord("a", b"x", 1, answer)])
    found = store.find("a")
    assert found is not None
    assert found.result == answer


def test_a_commit_is_all_or_nothing(store: Store) -> None:
    store.commit([snapshot(1)], [])
    run = RunRecord(1, None, Train(epochs=1), 0, 2, True, None)
    twice = [(run, [progress(1, 1, 2)])] * 2
    with pytest.raises(Exhausted, match="nothing is applied"):
        store.commit([snapshot(2)], [RequestRecord("a", b"x", 2, (0.1, 2))], twice)
    assert is_same(store.latest(), snapshot(1))
    assert store.find("a") is None
    assert (store.runs(), store.curve(1), store.next_run()) == ([], [], 1)
    with pytest.raises(ValueError, match="version 1 after 1"):
        store.commit([snapshot(1)], [RequestRecord("a", b"x", 2, (0.1, 2))], twice[:1])
    assert store.find("a") is None
    assert (store.runs(), store.curve(1), store.next_run()) == ([], [], 1)
    assert store.versions(10) == [
        VersionRecord(1, Origin.TRAIN, 7, store.versions(1)[0].committed_at)
    ]
    store.commit([snapshot(2)], [])
    assert is_same(store.latest(), snapshot(2))


def test_the_data_survives_a_restart(tmp_path: Path) -> None:
    for version in range(3):
        store = Store(tmp_path)
        if version:
            assert is_same(store.latest(), snapshot(version - 1))
        store.commit(
            [snapshot(version)], [RequestRecord(str(version), b"x", version, (0.5, version))]
        )
        store.close()
    store = Store(tmp_path)
    assert [store.find(str(v)) is not None for v in range(4)] == [True, True, True, False]
    store.close()


def test_a_runs_last_version_is_retained_in_a_commit_of_many_versions(store: Store) -> None:
    store.commit([snapshot(0)], [])
    run = RunRecord(1, None, Train(epochs=1), 0, 1, True, None)
    store.commit([snapshot(v) for v in range(1, RETAINED_VERSIONS + 500)], [], [(run, [])])
    assert is_same(store.version(1), snapshot(1))
    assert store.version(2) is None
    assert store.version(500) is not None
    run = RunRecord(1, None, Train(epochs=1), 0, RETAINED_VERSIONS + 600, True, None)
    store.commit([snapshot(RETAINED_VERSIONS + 600)], [], [(run, [])])
    assert store.version(1) is None, "the run has another last version"


def test_the_newest_versions_are_kept(store: Store) -> None:
    for start in range(0, RETAINED_VERSIONS + 500, 100):
        store.commit([snapshot(version) for version in range(start, start + 100)], [])
    last = RETAINED_VERSIONS + 499
    assert is_same(store.version(last), snapshot(last))
    assert is_same(store.version(500), snapshot(500))
    assert store.version(499) is None


def progress(epoch: int, epochs: int, version: int, run: int = 1) -> Progress:
    return Progress(epoch, epochs, 0.1 + 1 / epoch, 0.2, 0.9, version, epoch / 100, run)


def test_version_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5)
    store.commit([replace(snapshot(3), origin=Origin.RESTORE, run=None), snapshot(5)], [])
    found = [
        VersionRecord(5, Origin.TRAIN, 7, 1234.5),
        VersionRecord(3, Origin.RESTORE, None, 1234.5),
    ]
    assert store.versions(10) == found
    assert store.versions(1) == found[:1]


def test_a_run_and_its_curve_are_found(store: Store) -> None:
    request = Train(epochs=3, sgd=Sgd(0.5), batch_size=100, seed=2**64 - 1)
    run = RunRecord(store.next_run(), "a", request, 1.5, 2, False, progress(2, 3, 2))
    store.commit([snapshot(1), snapshot(2)], [], [(run, [progress(1, 3, 1), progress(2, 3, 2)])])
    assert store.runs() == store.runs(1) == [run]
    ended = replace(run, version=3, finished=True, last=progress(3, 3, 3))
    store.commit([snapshot(3)], [], [(ended, [progress(3, 3, 3)])])
    assert store.runs() == [ended]
    assert store.curve(1) == [progress(epoch, 3, epoch) for epoch in (1, 2, 3)]
    assert store.next_run() == 2
    assert store.runs(2) == store.runs(2**64 - 1) == []
    assert store.curve(2) == []


def test_one_commit_may_hold_much_of_a_run(store: Store) -> None:
    # The commit has two epochs, and half of a third that was interrupted.
    run = RunRecord(1, "a", Train(epochs=9), 0, 1, False, progress(1, 9, 1))
    second = replace(run, version=2, last=progress(2, 9, 2))
    interrupted = replace(run, version=3, last=None)
    told = [(run, [progress(1, 9, 1)]), (second, [progress(2, 9, 2)]), (interrupted, [])]
    places = [RunCheckpoint(49 * version, 0, 0.1, 1, 0.0) for version in (1, 2, 3)]
    records = [RequestRecord("a", b"x", place.steps // 49, None, place) for place in places]
    store.commit([snapshot(1), snapshot(2), snapshot(3)], records, told)
    assert store.runs() == [replace(interrupted, last=progress(2, 9, 2))]
    assert store.curve(1) == [progress(1, 9, 1), progress(2, 9, 2)]
    assert store.find("a") == records[-1]


def test_a_long_curve_is_thinned_evenly(store: Store) -> None:
    request = Train(epochs=2500)
    run = RunRecord(1, None, request, 0, 2500, True, progress(2500, 2500, 2500))
    store.commit([snapshot(1)], [], [(run, [progress(e, 2500, e) for e in range(1, 2501)])])
    epochs = [found.epoch for found in store.curve(1)]
    assert epochs == [1, *range(4, 2501, 4)]
    assert store.runs()[0].last == progress(2500, 2500, 2500)


def test_the_last_version_of_each_of_the_newest_runs_is_kept(store: Store) -> None:
    # Runs of three versions alternate with 50 Steps.
    lasts, version = [], 0
    for number in range(1, RETAINED_CURVES + 31):
        made = [snapshot(version + i) for i in (1, 2, 3)]
        run = RunRecord(number, None, Train(epochs=1), 0, version + 3, True, None)
        store.commit(made, [], [(run, [])])
        lasts.append(version + 3)
        version += 3
        store.commit([snapshot(version + i) for i in range(1, 51)], [])
        version += 50
    kept = {found.version for found in store.versions(10_000)}
    newest = set(range(version - RETAINED_VERSIONS + 1, version + 1))
    assert kept == newest | set(lasts[-RETAINED_CURVES:])
    assert [run.version for run in store.runs()] == lasts[::-1]


def test_the_last_version_of_a_run_that_goes_on_is_the_new_one(store: Store) -> None:
    run = RunRecord(1, "a", Train(epochs=9), 0, 5, False, None)
    store.commit([snapshot(5)], [], [(run, [])])
    store.commit([snapshot(v) for v in range(6, 1200)], [])
    assert is_same(store.version(5), snapshot(5))
    store.commit([snapshot(1200)], [], [(replace(run, version=1200), [])])
    assert store.version(5) is None


def test_the_file_is_bounded(tmp_path: Path) -> None:
    # After 50,000 versions and 1,000 runs it must be about as large as after 10,000 and 200.
    store, sizes = Store(tmp_path), []
    for number in range(1, 1001):
        made = [snapshot(number * 50 + i) for i in range(50)]
        run = RunRecord(number, None, Train(epochs=50), 0, made[-1].version, True, None)
        store.commit(made, [], [(run, [progress(e, 50, e) for e in range(1, 51)])])
        if number in (200, 1000):
            sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    store.close()
    assert sizes[1] < 1.2 * sizes[0] < 20e6


def test_ids_are_kept_a_day_and_the_newest_longer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(ids: range, now: float) -> None:
        monkeypatch.setattr("time.time", lambda: now)
        store.commit([], [RequestRecord(str(i), b"x", 0, (0.0, 0)) for i in ids])

    commit(range(100), 0)
    commit(range(100, RETAINED_REQUESTS + 50), 23 * 3600)
    assert store.find("0") is not None, "older than the newest 10,000, but not a day old"
    commit(range(RETAINED_REQUESTS + 50, RETAINED_REQUESTS + 50 + FORGET_INTERVAL), 25 * 3600)
    assert store.find("0") is None
    assert store.find(str(50 + FORGET_INTERVAL)) is not None, "a day old, but of the newest 10,000"


def test_ids_of_a_clock_that_was_ahead_are_kept_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(ids: range, now: float) -> None:
        monkeypatch.setattr("time.time", lambda: now)
        store.commit([], [RequestRecord(str(i), b"x", 0, (0.0, 0)) for i in ids])

    year, day = 365 * 24 * 3600, 24 * 3600
    commit(range(100), year)
    newest = range(100, RETAINED_REQUESTS + 200)
    commit(newest, 0)
    assert store.find("0") is not None
    commit(range(newest.stop, newest.stop + FORGET_INTERVAL), day - 60)
    assert store.find("0") is not None
    commit(range(newest.stop + FORGET_INTERVAL, newest.stop + 2 * FORGET_INTERVAL), day + 60)
    assert store.find("0") is None


def test_a_second_process_is_refused_and_the_error_names_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import sys, pathlib, mnist37_server.storage.store as s; s.Store(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"is in use by another server, process {os.getpid()}" in second.stderr
    store.close()
    assert subprocess.run(command, check=False).returncode == 0


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="--state: cannot write to"):
        Store(tmp_path / "file")
    with pytest.raises(CannotStart, match="--state: cannot write to"):
        Store(tmp_path / "file" / "below")


def test_a_database_of_another_release_or_none_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CannotStart, match="schema 99; this release reads 5"):
        Store(tmp_path)
    (tmp_path / "mnist37.sqlite3").write_bytes(json.dumps("no database at all").encode() * 500)
    with pytest.raises(CannotStart, match="cannot be used: file is not a database"):
        Store(tmp_path)


SCHEMA_2 = """
CREATE TABLE versions (version INTEGER PRIMARY KEY, parameters BLOB NOT NULL, digest TEXT NOT NULL,
    place INTEGER NOT NULL, origin TEXT NOT NULL, run INTEGER, committed REAL NOT NULL);
CREATE TABLE runs (number INTEGER PRIMARY KEY, request_id TEXT, request TEXT NOT NULL,
    began REAL NOT NULL, version INTEGER NOT NULL, finished INTEGER NOT NULL, last TEXT);
CREATE TABLE epochs (run INTEGER NOT NULL, epoch INTEGER NOT NULL, progress TEXT NOT NULL,
    PRIMARY KEY (run, epoch)) WITHOUT ROWID;
CREATE TABLE requests (number INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL, version INTEGER NOT NULL, answer TEXT, place TEXT,
    committed REAL NOT NULL);
"""


@pytest.mark.parametrize(
    ("schema", "place"), [(1, [9, 5, 256, 0.5, 3, 1e9]), (2, [9, 5, 0.5, 3, 1e9])]
)
def test_a_database_of_an_earlier_schema_is_migrated(
    tmp_path: Path, schema: int, place: list[float]
) -> None:
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.executescript(SCHEMA_2)
        made = replace(snapshot(0), origin=Origin.INITIALIZE, run=None)
        for kept in (made, snapshot(3, 5), snapshot(6, 5)):
            origin = kept.origin.name.lower()
            row = (kept.version, kept.content, kept.digest, kept.batch_cursor, origin, kept.run)
            connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, 1.5)", row)
        connection.execute(
            "INSERT INTO runs VALUES (7, 'run', ?, 0.5, 6, 0, ?)",
            (train_to_json(Train(epochs=9)), json.dumps(progress(2, 9, 6)[:7])),
        )
        for epoch in (1, 2):
            told = json.dumps(progress(epoch, 9, 3 * epoch)[:7])
            connection.execute("INSERT INTO epochs VALUES (7, ?, ?)", (epoch, told))
        connection.execute(
            "INSERT INTO requests VALUES (1, 'run', ?, 6, NULL, ?, 1.5)",
            (b"x" * 32, json.dumps(place)),
        )
        connection.execute(f"PRAGMA user_version = {schema}")
    connection.close()
    for _ in range(2):  # the first start migrates the database; the second one opens it
        store = Store(tmp_path)
        assert is_same(store.latest(), snapshot(6, 5))
        assert store.version(3) == snapshot(3, 5)
        assert store.version(0) == made
        assert store.versions(2) == [VersionRecord(v, Origin.TRAIN, 7, 1.5) for v in (6, 3)]
        run = RunRecord(7, "run", Train(epochs=9), 0.5, 6, False, progress(2, 9, 6, 7))
        assert store.runs() == [run]
        assert store.curve(7) == [progress(1, 9, 3, 7), progress(2, 9, 6, 7)]
        found = store.find("run")
        assert found == RequestRecord("run", b"x" * 32, 6, None, RunCheckpoint(9, 5, 0.5, 3, 1e9))
        store.close()
    store = Store(tmp_path)
    store.commit([snapshot(9)], [])
    assert is_same(store.latest(), snapshot(9))
    assert is_same(store.version(0), made)
    store.close()


def test_an_earlier_database_that_cannot_be_migrated_stays_unchanged(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.executescript(SCHEMA_2)
        connection.execute("INSERT INTO versions VALUES (1, x'', '', 0, 'no such', NULL, 1.5)")
        connection.execute("PRAGMA user_version = 2")
    before = list(connection.iterdump())
    connection.close()
    with pytest.raises(CannotStart, match="cannot be taken over"):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        assert list(connection.iterdump()) == before
    connection.close()


def write_schema_2_database(folder: Path) -> Path:
    """Write a database of an earlier release, with 199 versions, and return its path."""
    database = folder / "mnist37.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.executescript(SCHEMA_2)
        for kept in map(snapshot, range(1, 200)):
            row = (kept.version, kept.content, kept.digest, 0, "train", 7, 1.5)
            connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    return database


def test_an_earlier_database_is_migrated_once_the_disk_has_room(tmp_path: Path) -> None:
    database = write_schema_2_database(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (database.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(CannotStart, match=r"make room on its disk.*what was committed is kept"):
            Store(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store = Store(tmp_path)
    assert len(store.versions(1_000)) == 199
    assert is_same(store.latest(), snapshot(199))
    store.close()


@pytest.mark.parametrize(
    "before", ["ALTER TABLE epochs", "INSERT INTO versions", "PRAGMA user_v", "COMMIT"]
)
def test_a_kill_during_a_migration_loses_nothing(tmp_path: Path, before: str) -> None:
    write_schema_2_database(tmp_path)
    script = """
import os, pathlib, signal, sqlite3, sys
from mnist37_server.storage.store import Store
class Killed(sqlite3.Connection):
    def execute(self, sql, *arguments):
        if sql.startswith(sys.argv[2]) and self.in_transaction:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *arguments)
    def executemany(self, sql, *arguments):
        return self.execute(sql) if sql.startswith(sys.argv[2]) else super().executemany(
            sql, *arguments)
Store(pathlib.Path(sys.argv[1]), Killed)
"""
    command = [sys.executable, "-c", script, str(tmp_path), before]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert [known.version for known in store.versions(1_000)] == list(range(199, 0, -1))
    assert all(is_same(store.version(version), snapshot(version)) for version in range(1, 200))
    store.close()


def test_an_earlier_database_that_is_damaged_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mnist37.sqlite3") as connection:
        connection.executescript(SCHEMA_2)
        made = snapshot(3)
        content = bytearray(made.content)
        content[100] ^= 1
        row = (3, bytes(content), made.digest, 0, "train", 7, 1.5)
        connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(CannotStart, match="the parameters of version 3 are damaged"):
        Store(tmp_path)


def test_concurrent_readers_see_every_commit(store: Store) -> None:
    # Some of the commits fail.
    run = RunRecord(1, None, Train(epochs=1), 0, 3, True, None)
    store.commit([snapshot(v) for v in range(1, 4)], [], [(run, [])])
    committed, stop, errors = 3, threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            least = committed
            found = [known.version for known in store.versions(2)]
            if len(found) != 2 or found[0] < least or not is_same(store.version(3), snapshot(3)):
                errors.append((least, found))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    version = 3
    for number in range(300):
        made = [snapshot(version + i) for i in range(1, 1 + number % 40)]
        fails = number % 3 == 2
        try:
            # The database refuses an epoch of a run that is inserted twice.
            twice = [(replace(run, number=2, version=0), [progress(1, 1, 0)])] * 2
            store.commit(made, [], twice if fails else [])
        except Exhausted:
            assert fails
        else:
            version += len(made)
            committed = version
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert version > 2 * RETAINED_VERSIONS


def test_the_retained_versions_are_the_same_after_a_restart(tmp_path: Path) -> None:
    # Commits have one or many versions, so that rows are freed and reused in every order.
    random, version, store = np.random.default_rng(1), 0, Store(tmp_path)
    for number in range(1, 400):
        made = [snapshot(version + i) for i in range(1, random.choice([1, 2, 16, 17, 80]) + 1)]
        version = made[-1].version
        run = RunRecord(store.next_run(), None, Train(epochs=1), 0, version, True, None)
        store.commit(made, [], [(run, [])] if random.random() < 0.4 else [])
        if number % 50 == 0:
            kept = store.versions(10_000)
            newest = [found.version for found in kept[:RETAINED_VERSIONS]]
            assert newest == list(range(version, version - len(newest), -1))
            lasts = {run.version for run in store.runs()[:RETAINED_CURVES]}
            assert {found.version for found in kept} == {*newest, *lasts}
            store.close()
            store = Store(tmp_path)
            assert store.versions(10_000) == kept
            assert all(is_same(store.version(v.version), snapshot(v.version)) for v in kept[::7])
            assert store.version(version - RETAINED_VERSIONS - 100) is None or version < 2000
    store.close()
    assert (tmp_path / "mnist37.sqlite3").stat().st_size < 12e6


@pytest.mark.parametrize(
    "damage",
    [
        *("truncated", "scribbled on", "parameters changed", "empty", "another program's"),
        *("missing", "a row too short", "an origin that is none"),
    ],
)
def test_a_damaged_database_is_refused(tmp_path: Path, damage: str) -> None:
    # The server must neither serve from it nor start with a new database.
    store = Store(tmp_path)
    for version in range(1, 200):
        store.commit(
            [snapshot(version)], [RequestRecord(str(version), b"x", version, (0.1, version))]
        )
    store.close()
    path = tmp_path / "mnist37.sqlite3"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "scribbled on":
        for page in range(2, len(content) // 4096, 3):
            content[page * 4096 : page * 4096 + 64] = b"scribble" * 8
        path.write_bytes(content)
    elif damage == "parameters changed":
        at = content.rindex(snapshot(199).content[:64])
        content[at + 100] ^= 1
        path.write_bytes(content)
    elif damage in {"a row too short", "an origin that is none"}:
        cut = "substr(about, 2)" if damage == "a row too short" else "about || zeroblob(56)"
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE versions SET about = {cut} WHERE slot = 7")
        connection.close()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.rename(tmp_path / "mnist37.sqlite3-wal")
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE other (program)")
        connection.close()
    with pytest.raises(CannotStart, match=r"cannot be used: .*; put a backup in its place"):
        Store(tmp_path)


def test_a_damaged_version_does_not_affect_the_others_in_its_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit([snapshot(version) for version in range(1, 11)], [])
    store.close()
    path = tmp_path / "mnist37.sqlite3"
    content = bytearray(path.read_bytes())
    content[content.rindex(snapshot(4).content[:64]) + 30] ^= 1
    path.write_bytes(content)
    store = Store(tmp_path)
    assert is_same(store.latest(), snapshot(10))
    assert is_same(store.version(5), snapshot(5))
    with pytest.raises(sqlite3.DatabaseError, match="the parameters of version 4 are damaged"):
        store.version(4)
    store.close()


def test_a_commit_succeeds_after_one_that_could_not_be_rolled_back(tmp_path: Path) -> None:
    class Failing(sqlite3.Connection):
        fails: frozenset[str] = frozenset()

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql in Failing.fails:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *arguments)

    store = Store(tmp_path, Failing)
    store.commit([snapshot(1)], [])
    Failing.fails = frozenset({"COMMIT", "SELECT number, version FROM runs ORDER BY number"})
    with pytest.raises(Exhausted):
        store.commit([snapshot(2)], [])
    with pytest.raises(Exhausted):
        store.commit([snapshot(2)], [])
    Failing.fails = frozenset()
    assert [found.version for found in store.versions(5)] == [1]
    store.commit([snapshot(2)], [])
    assert [found.version for found in store.versions(5)] == [2, 1]
    store.close()


def test_an_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "mnist37.new").write_bytes(b"half a database")
    store = Store(tmp_path)
    assert store.latest() is None
    store.commit([snapshot(1)], [])
    store.close()


def test_a_clock_that_jumps_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, now in enumerate([1e9, 2e9, 0.0, 5e9, 1e9]):
        monkeypatch.setattr("time.time", lambda now=now: now)
        name = f"at {version}"
        store.commit([snapshot(version)], [RequestRecord(name, b"x", version, (0.0, version))])
    assert all(store.find(f"at {version}") for version in range(5))
    assert is_same(store.latest(), snapshot(4))
