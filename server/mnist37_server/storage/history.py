"""The versions of the model that are kept, and the runs with their curves: tables and queries.

Kept are the newest versions, and the last one of each of the newest runs; so the file is bounded.
Nothing here begins or ends a transaction: mnist37_server.storage.store does, around a whole commit.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import starmap
from struct import Struct
from typing import NamedTuple

from mnist37.examples import PARAMETERS
from mnist37_server.domain.commands import Progress, Train
from mnist37_server.domain.snapshot import Origin, Snapshot

VERSIONS = """
CREATE TABLE versions (
    slot       INTEGER PRIMARY KEY,     -- written over when none of its versions is kept any more
    about      BLOB NOT NULL,           -- ABOUT of versions that were committed together
    committed  REAL NOT NULL,           -- seconds since 1970, by the clock of the wall
    parameters BLOB NOT NULL            -- of each, 785 little-endian float32
);
"""
RUNS = """
CREATE TABLE runs (
    number     INTEGER PRIMARY KEY,
    request_id TEXT,
    request    TEXT NOT NULL,           -- JSON of a Train
    began      REAL NOT NULL,
    version    INTEGER NOT NULL,        -- of the model after the run's last commit
    finished   INTEGER NOT NULL,
    last       TEXT                     -- JSON of the last epoch's Progress
);
"""
EPOCHS = """
CREATE TABLE epochs (
    run        INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,        -- the last of those in the row
    progress   BLOB NOT NULL,           -- PROGRESS of epochs that were committed together
    PRIMARY KEY (run, epoch)
) WITHOUT ROWID;
"""
SCHEMA = VERSIONS + RUNS + EPOCHS

# Rows hold several things that came together: to insert a row takes longer than to fill it.
ABOUT = Struct("<qqii")  # of a version: its number, the run's (0: none), place, origin
DIGEST = hashlib.sha256().digest_size  # follows on it: of that and the parameters, SHA-256
PROGRESS = Struct("<IIdddqd")  # of an epoch, in the order of Progress's fields
A_ROW = 16  # versions: so many are read to look at one
BYTES = 4 * PARAMETERS  # of a version's parameters

ORIGINS = frozenset(Origin)

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
    """What is kept and what is dropped when something new comes.

    It knows where each kept version is, so that no commit has to look for it in the tables, nor
    for what to drop: a version that is not kept is forgotten here, and its slot written over when
    nothing that is kept is left in it. Readers see of that what is committed; all else is for the
    thread that commits, which calls `begin`, what there is to insert, and `committed`. Without the
    last, what was inserted is forgotten.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._read()

    def _read(self) -> None:
        runs = self._connection.execute("SELECT number, version FROM runs ORDER BY number")
        self._runs: dict[int, int] = dict(runs.fetchall())  # the last version of each
        rows = self._connection.execute("SELECT slot, about, length(parameters) FROM versions")
        slots: list[int] = []
        found: dict[int, int] = {}
        for slot, about, size in rows:
            slots.append(slot)
            versions = list(unpacked(about))
            if size != len(versions) * BYTES:
                raise sqlite3.DatabaseError(f"the row of version {versions[-1][0]} is damaged")
            found |= {version: slot for version, *_ in versions}
        self._slots = max(slots, default=0)
        lasts = set(self._runs.values())
        self._newest = deque(sorted(found)[-KEPT_VERSIONS:])
        kept = (lasts & found.keys()) | set(self._newest)
        self._index = {version: found[version] for version in kept}  # of what is committed
        self._kept_in = Counter(self._index.values())  # how many versions, by slot
        self._free: list[int] = [slot for slot in slots if slot not in self._kept_in]
        self._added: dict[int, int] = {}
        self._dropped: list[int] = []
        self._stale = False  # whether more was inserted than is committed

    def newest(self) -> int | None:
        """The newest version; None where there is none yet."""
        return self._newest[-1] if self._newest else None

    def kept(self) -> list[tuple[int, int]]:
        """All versions that are kept, newest first, and where they are; for any thread."""
        return sorted(self._index.copy().items(), reverse=True)

    def slot(self, version: int) -> int | None:
        """Where a version is, if it is kept; for any thread."""
        return self._index.get(version)

    def next_run(self) -> int:
        """The number of the next run to begin."""
        if self._stale:
            self._read()
        return max(self._runs, default=0) + 1

    def begin(self) -> None:
        """A transaction has begun."""
        if self._stale:
            self._read()
        self._stale = True

    def committed(self) -> None:
        """The transaction is committed: now readers may look where it put things."""
        self._index.update(self._added)
        for version in self._dropped:
            del self._index[version]
        self._added.clear()
        self._dropped.clear()
        self._stale = False

    def insert(self, snapshots: Sequence[Snapshot], now: float) -> None:
        """Adds versions, oldest first, and drops those that are no longer of the newest."""
        if snapshots and self._newest and snapshots[0].version <= self._newest[-1]:
            raise ValueError(f"version {snapshots[0].version} after {self._newest[-1]}")
        lasts = set(self._runs.values())
        if len(snapshots) > KEPT_VERSIONS:
            older = [s for s in snapshots[:-KEPT_VERSIONS] if s.version in lasts]
            snapshots = [*older, *snapshots[-KEPT_VERSIONS:]]
        self._newest += [snapshot.version for snapshot in snapshots]
        while len(self._newest) > KEPT_VERSIONS:
            version = self._newest.popleft()
            if version not in lasts:
                self._drop(version)
        together = [snapshots[i : i + A_ROW] for i in range(0, len(snapshots), A_ROW)]
        self._connection.executemany(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
            [(self._take_slot(some), *packed(some, now)) for some in together],
        )

    def _take_slot(self, snapshots: Sequence[Snapshot]) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            self._slots += 1
            slot = self._slots
        for snapshot in snapshots:
            self._added[snapshot.version] = slot
        self._kept_in[slot] = len(snapshots)
        return slot

    def _drop(self, version: int) -> None:
        slot = self._index.get(version)
        if slot is not None:
            self._dropped.append(version)
            self._kept_in[slot] -= 1
            if not self._kept_in[slot]:
                self._free.append(slot)

    def insert_runs(self, runs: Sequence[tuple[RunRecord, Sequence[Progress]]]) -> None:
        """Adds runs or what is new of them, oldest first, and drops the oldest runs."""
        newest: dict[int, RunRecord] = {}
        for run, epochs in runs:
            apart = stride(run.request.epochs)
            kept = [progress for progress in epochs if progress.epoch % apart == 0]
            if kept:
                self._connection.execute(
                    "INSERT INTO epochs VALUES (?, ?, ?)",
                    (run.number, kept[-1].epoch, b"".join(starmap(PROGRESS.pack, kept))),
                )
            earlier = newest.get(run.number)
            last = earlier.last if run.last is None and earlier else run.last
            newest[run.number] = replace(run, last=last)
        for run in newest.values():
            self._insert_run(run)

    def _insert_run(self, run: RunRecord) -> None:
        last = None if run.last is None else json.dumps(run.last)
        request = json.dumps(asdict(run.request))
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " version = excluded.version, finished = excluded.finished,"
            " last = coalesce(excluded.last, last)",
            (run.number, run.request_id, request, run.began, run.version, run.finished, last),
        )
        released = [self._runs[run.number]] if run.number in self._runs else []
        self._runs[run.number] = run.version
        for number in sorted(self._runs)[:-KEPT_RUNS]:
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
            released.append(self._runs.pop(number))
        for version in released:
            if version < self._newest[0]:
                self._drop(version)


def packed(snapshots: Sequence[Snapshot], now: float) -> tuple[bytes, float, bytes]:
    """The columns of a row of versions that were committed together, but for its slot."""
    about = []
    for snapshot in snapshots:
        head = ABOUT.pack(snapshot.version, snapshot.run or 0, snapshot.place, snapshot.origin)
        about += [head, hashlib.sha256(head + snapshot.content).digest()]
    return b"".join(about), now, b"".join([snapshot.content for snapshot in snapshots])


def unpacked(about: bytes) -> Iterator[tuple[int, int | None, int, Origin, bytes]]:
    """What is known of each version in a row: number, run, place, origin, digest.

    Raises:
        sqlite3.DatabaseError: it is not what was stored.
    """
    size = ABOUT.size + DIGEST
    if not about or len(about) % size:
        raise sqlite3.DatabaseError("a row of versions is damaged")
    for start in range(0, len(about), size):
        version, run, place, origin = ABOUT.unpack_from(about, start)
        if origin not in ORIGINS:
            raise sqlite3.DatabaseError(f"what is known of version {version} is damaged")
        digest = about[start + ABOUT.size : start + size]
        yield version, run or None, place, Origin(origin), digest


def stride(epochs: int) -> int:
    """How far apart the epochs are that are kept of a run of so many."""
    return -(-epochs // KEPT_EPOCHS)


def snapshot(connection: sqlite3.Connection, slot: int, version: int) -> Snapshot | None:
    """A version that is in this slot; None where it no longer is.

    Raises:
        sqlite3.DatabaseError: what is there is not what was stored.
    """
    row = connection.execute(
        "SELECT about, parameters FROM versions WHERE slot = ?", (slot,)
    ).fetchone()
    if row is None:
        return None
    about, parameters = row
    for i, (there, run, place, origin, digest) in enumerate(unpacked(about)):
        if there == version:
            content = parameters[i * BYTES : (i + 1) * BYTES]
            head = ABOUT.pack(version, run or 0, place, origin)
            if len(content) != BYTES or hashlib.sha256(head + content).digest() != digest:
                raise sqlite3.DatabaseError(f"the parameters of version {version} are damaged")
            return Snapshot(version, content, place, origin, run)
    return None


def versions(connection: sqlite3.Connection, wanted: Sequence[tuple[int, int]]) -> list[Version]:
    """What is known of versions, each with the slot that it is in; newest first."""
    found = {}
    for slot in {slot for _, slot in wanted}:
        rows = connection.execute("SELECT about, committed FROM versions WHERE slot = ?", (slot,))
        for about, committed in rows:
            for version, run, _, origin, _ in unpacked(about):
                found[version] = Version(version, origin, run, committed)
    return [found[version] for version, _ in wanted if version in found]


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
    try:
        return [Progress._make(values) for (some,) in rows for values in PROGRESS.iter_unpack(some)]
    except struct.error as error:
        raise sqlite3.DatabaseError(f"the curve of run {number} is damaged") from error
