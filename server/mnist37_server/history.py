"""The versions of the model that are kept, and the runs with their curves: tables and queries.

Kept are the newest versions, and the last one of each of the newest runs; so the file is bounded.
Nothing here begins or ends a transaction: mnist37_server.state does, around a whole commit.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mnist37_server.requests import Progress, Train
from mnist37_server.snapshot import Origin, Snapshot

SCHEMA = """
CREATE TABLE versions (
    version    INTEGER PRIMARY KEY,
    parameters BLOB NOT NULL,           -- 785 little-endian float32
    digest     TEXT NOT NULL,           -- of the parameters; SQLite itself checks no content
    place      INTEGER NOT NULL,        -- of the next Step without a batch
    origin     TEXT NOT NULL,
    run        INTEGER,                 -- the number of the run that made it, if one did
    committed  REAL NOT NULL            -- seconds since 1970, by the clock of the wall
);
CREATE TABLE runs (
    number     INTEGER PRIMARY KEY,
    request_id TEXT,
    request    TEXT NOT NULL,           -- JSON of a Train
    began      REAL NOT NULL,
    version    INTEGER NOT NULL,        -- of the model after the run's last commit
    finished   INTEGER NOT NULL,
    last       TEXT                     -- JSON of the last epoch's Progress
);
CREATE TABLE epochs (
    run        INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    progress   TEXT NOT NULL,           -- JSON of a Progress
    PRIMARY KEY (run, epoch)
) WITHOUT ROWID;
"""

KEPT_VERSIONS = 1_000
KEPT_RUNS = 100
KEPT_EPOCHS = 1_000  # of each run's curve, evenly spread


class Version(NamedTuple):
    """What is known of a kept version, besides its parameters."""

    version: int
    origin: Origin
    run: int | None
    committed: float  # seconds since 1970


@dataclass(frozen=True)
class RunRecord:
    """What is remembered of a run."""

    number: int
    request_id: str | None
    request: Train
    began: float  # seconds since 1970
    version: int  # of the model after its last commit
    finished: bool
    last: Progress | None  # of the last epoch that was finished


class History:
    """What is kept and what is dropped when something new comes; for the thread that commits.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._read()

    def _read(self) -> None:
        """Which versions there are, so that no commit has to look for them in the tables."""
        runs = self._connection.execute("SELECT number, version FROM runs ORDER BY number")
        self._runs: dict[int, int] = dict(runs.fetchall())  # the last version of each
        versions = self._connection.execute("SELECT version FROM versions ORDER BY version")
        self._newest = [version for (version,) in versions][-KEPT_VERSIONS:]

    def next_run(self) -> int:
        """The number of the next run to begin."""
        return max(self._runs, default=0) + 1

    def insert(self, snapshots: Sequence[Snapshot], now: float) -> None:
        """Adds versions, and drops those that are no longer of the newest."""
        self._connection.executemany(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (s.version, s.content, s.digest, s.place, s.origin.value, s.run, now)
                for s in snapshots
            ],
        )
        self._newest += [snapshot.version for snapshot in snapshots]
        surplus = self._newest[:-KEPT_VERSIONS]
        if surplus:
            self._newest = self._newest[-KEPT_VERSIONS:]
            self._drop(surplus)

    def insert_runs(self, runs: Sequence[tuple[RunRecord, Sequence[Progress]]]) -> None:
        """Adds runs or what is new of them, oldest first, and drops the oldest runs."""
        self._connection.executemany(
            "INSERT INTO epochs VALUES (?, ?, ?)",
            [
                (run.number, progress.epoch, json.dumps(progress))
                for run, epochs in runs
                for progress in epochs
                if progress.epoch % stride(run.request.epochs) == 0
            ],
        )
        newest: dict[int, RunRecord] = {}
        for run, _ in runs:
            earlier = newest.get(run.number)
            last = earlier.last if run.last is None and earlier else run.last
            newest[run.number] = replace(run, last=last)
        for run in newest.values():
            self._insert_run(run)

    def _insert_run(self, run: RunRecord) -> None:
        last = None if run.last is None else json.dumps(run.last)
        request = json.dumps(vars(run.request))
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " version = excluded.version, finished = excluded.finished,"
            " last = coalesce(excluded.last, last)",
            (run.number, run.request_id, request, run.began, run.version, run.finished, last),
        )
        before = self._runs.get(run.number)
        self._runs[run.number] = run.version
        released = [] if before is None else [before]
        for number in sorted(self._runs)[:-KEPT_RUNS]:
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
            released.append(self._runs.pop(number))
        self._drop([version for version in released if version < self._newest[0]])

    def roll_back(self) -> None:
        """After a transaction that failed: knows again what is in the tables."""
        self._read()

    def _drop(self, versions: Sequence[int]) -> None:
        lasts = set(self._runs.values())
        self._connection.executemany(
            "DELETE FROM versions WHERE version = ?",
            [(version,) for version in versions if version not in lasts],
        )


def stride(epochs: int) -> int:
    """How far apart the epochs are that are kept of a run of so many."""
    return -(-epochs // KEPT_EPOCHS)


def snapshot(connection: sqlite3.Connection, version: int | None) -> Snapshot | None:
    """A version that is kept; None asks for the newest.

    Raises:
        sqlite3.DatabaseError: its parameters are not those that were stored.
    """
    where = "ORDER BY version DESC LIMIT 1" if version is None else "WHERE version = ?"
    row = connection.execute(
        f"SELECT version, parameters, place, origin, run, digest FROM versions {where}",
        () if version is None else (version,),
    ).fetchone()
    if row is None:
        return None
    if hashlib.sha256(row[1]).hexdigest() != row[5]:
        raise sqlite3.DatabaseError(f"the parameters of version {row[0]} are damaged")
    return Snapshot(row[0], row[1], row[2], Origin(row[3]), row[4])


def versions(connection: sqlite3.Connection, limit: int) -> list[Version]:
    """What is kept, newest first."""
    rows = connection.execute(
        "SELECT version, origin, run, committed FROM versions ORDER BY version DESC LIMIT ?",
        (limit,),
    )
    return [Version(version, Origin(origin), run, at) for version, origin, run, at in rows]


def runs(connection: sqlite3.Connection, number: int | None = None) -> list[RunRecord]:
    """The runs that are kept, newest first; or the one of this number, if it is."""
    where = "" if number is None else "WHERE number = ?"
    rows = connection.execute(
        f"SELECT * FROM runs {where} ORDER BY number DESC", () if number is None else (number,)
    )
    return [
        RunRecord(
            row[0],
            row[1],
            Train(**json.loads(row[2])),
            row[3],
            row[4],
            bool(row[5]),
            None if row[6] is None else Progress(*json.loads(row[6])),
        )
        for row in rows
    ]


def curve(connection: sqlite3.Connection, number: int) -> list[Progress]:
    """The epochs that are kept of a run, in their order."""
    rows = connection.execute("SELECT progress FROM epochs WHERE run = ? ORDER BY epoch", (number,))
    return [Progress(*json.loads(progress)) for (progress,) in rows]
