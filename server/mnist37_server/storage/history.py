"""The versions of the model that are kept, and the runs with their curves: tables and queries.

Kept are the newest versions, and the last one of each of the newest runs; so the file is bounded.
Nothing here begins or ends a transaction: mnist37_server.storage.store does, around a whole commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from mnist37_server.domain.records import RunRecord
from mnist37_server.domain.results import Progress, values_of
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.storage.rows import (
    PARAMETER_BYTES,
    VERSIONS_PER_ROW,
    pack_epochs,
    pack_versions,
    train_to_json,
    unpack_versions,
)

RETAINED_VERSIONS = 1_000
RETAINED_RUNS = 100
RETAINED_EPOCHS = 1_000  # of each run's curve, evenly spread


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
            versions = list(unpack_versions(about))
            if size != len(versions) * PARAMETER_BYTES:
                raise sqlite3.DatabaseError(f"the row of version {versions[-1][0]} is damaged")
            found |= {version: slot for version, *_ in versions}
        self._slots = max(slots, default=0)
        lasts = set(self._runs.values())
        self._newest = deque(sorted(found)[-RETAINED_VERSIONS:])
        kept = (lasts & found.keys()) | set(self._newest)
        self._index = {version: found[version] for version in kept}  # of what is committed
        self._versions_in_slot = Counter(self._index.values())  # how many versions, by slot
        self._free: list[int] = [slot for slot in slots if slot not in self._versions_in_slot]
        self._added: dict[int, int] = {}
        self._dropped: list[int] = []
        self._stale = False  # whether more was inserted than is committed

    def newest(self) -> int | None:
        """The newest version; None where there is none yet."""
        return self._newest[-1] if self._newest else None

    def retained(self) -> list[tuple[int, int]]:
        """All versions that are kept, newest first, and where they are; for any thread."""
        return sorted(self._index.copy().items(), reverse=True)

    def slot_of(self, version: int) -> int | None:
        """Where a version is, if it is kept; for any thread."""
        return self._index.get(version)

    def next_run(self) -> int:
        """The number of the next run to begin."""
        if self._stale:
            self._read()
        return max(self._runs, default=0) + 1

    def begin_transaction(self) -> None:
        """A transaction has begun."""
        if self._stale:
            self._read()
        self._stale = True

    def end_transaction(self) -> None:
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
        if len(snapshots) > RETAINED_VERSIONS:
            older = [s for s in snapshots[:-RETAINED_VERSIONS] if s.version in lasts]
            snapshots = [*older, *snapshots[-RETAINED_VERSIONS:]]
        self._newest += [snapshot.version for snapshot in snapshots]
        while len(self._newest) > RETAINED_VERSIONS:
            version = self._newest.popleft()
            if version not in lasts:
                self._drop(version)
        together = [
            snapshots[i : i + VERSIONS_PER_ROW] for i in range(0, len(snapshots), VERSIONS_PER_ROW)
        ]
        self._connection.executemany(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
            [(self._take_slot(some), *pack_versions(some, now)) for some in together],
        )

    def _take_slot(self, snapshots: Sequence[Snapshot]) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            self._slots += 1
            slot = self._slots
        for snapshot in snapshots:
            self._added[snapshot.version] = slot
        self._versions_in_slot[slot] = len(snapshots)
        return slot

    def _drop(self, version: int) -> None:
        slot = self._index.get(version)
        if slot is not None:
            self._dropped.append(version)
            self._versions_in_slot[slot] -= 1
            if not self._versions_in_slot[slot]:
                self._free.append(slot)

    def insert_runs(self, runs: Sequence[tuple[RunRecord, Sequence[Progress]]]) -> None:
        """Adds runs or what is new of them, oldest first, and drops the oldest runs."""
        newest: dict[int, RunRecord] = {}
        for run, epochs in runs:
            apart = epoch_stride(run.request.epochs)
            kept = [progress for progress in epochs if progress.epoch % apart == 0]
            if kept:
                self._connection.execute(
                    "INSERT INTO epochs VALUES (?, ?, ?)",
                    (run.number, kept[-1].epoch, pack_epochs(kept)),
                )
            earlier = newest.get(run.number)
            last = earlier.last if run.last is None and earlier else run.last
            newest[run.number] = replace(run, last=last)
        for run in newest.values():
            self._insert_run(run)

    def _insert_run(self, run: RunRecord) -> None:
        last = None if run.last is None else json.dumps(values_of(run.last))
        request = train_to_json(run.request)
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " version = excluded.version, finished = excluded.finished,"
            " last = coalesce(excluded.last, last)",
            (run.number, run.request_id, request, run.started_at, run.version, run.finished, last),
        )
        released = [self._runs[run.number]] if run.number in self._runs else []
        self._runs[run.number] = run.version
        for number in sorted(self._runs)[:-RETAINED_RUNS]:
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
            released.append(self._runs.pop(number))
        for version in released:
            if version < self._newest[0]:
                self._drop(version)


def epoch_stride(epochs: int) -> int:
    """How far apart the epochs are that are kept of a run of so many."""
    return -(-epochs // RETAINED_EPOCHS)
