"""Tables and queries of the retained versions, and of the retained runs with their curves.

Retained are the newest versions, and the last version of each of the newest runs. So the size of
the file is bounded. This module begins and ends no transaction: mnist37_server.storage.store does
that, around a whole commit.
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
    """The retained versions and runs, with an index in memory of the slot of each version.

    A slot is a row of the table `versions`. Thanks to the index a commit runs no query to find a
    version, or to find what to drop. To drop a version removes it from the index only. When a slot
    holds no retained version any more, a later insert overwrites its row.

    Readers, in any thread, see the committed versions. All other methods are for the thread that
    commits. It calls `begin_transaction`, then the inserts, then `end_transaction`. Without
    `end_transaction` the inserts do not count: the next transaction reads the index from the
    tables again.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._read()

    def _read(self) -> None:
        runs = self._connection.execute("SELECT number, version FROM runs ORDER BY number")
        self._runs: dict[int, int] = dict(runs.fetchall())  # the last version of each run
        rows = self._connection.execute("SELECT slot, about, length(parameters) FROM versions")
        slots: list[int] = []
        slot_by_version: dict[int, int] = {}
        for slot, about, size in rows:
            slots.append(slot)
            versions = list(unpack_versions(about))
            if size != len(versions) * PARAMETER_BYTES:
                raise sqlite3.DatabaseError(f"the row of version {versions[-1][0]} is damaged")
            slot_by_version |= {version: slot for version, *_ in versions}
        self._slots = max(slots, default=0)
        last_versions = set(self._runs.values())
        self._newest = deque(sorted(slot_by_version)[-RETAINED_VERSIONS:])
        retained = (last_versions & slot_by_version.keys()) | set(self._newest)
        # The slot of each committed version. Other threads read it.
        self._index = {version: slot_by_version[version] for version in retained}
        self._versions_in_slot = Counter(self._index.values())  # how many are retained, by slot
        self._free: list[int] = [slot for slot in slots if slot not in self._versions_in_slot]
        self._added: dict[int, int] = {}
        self._dropped: list[int] = []
        self._stale = False  # whether there are inserts that are not committed

    def newest(self) -> int | None:
        """Return the newest version; None if there is none yet."""
        return self._newest[-1] if self._newest else None

    def retained(self) -> list[tuple[int, int]]:
        """Return the retained versions, newest first, each with its slot. Thread-safe."""
        return sorted(self._index.copy().items(), reverse=True)

    def slot_of(self, version: int) -> int | None:
        """Return the slot of a version; None if it is not retained. Thread-safe."""
        return self._index.get(version)

    def next_run(self) -> int:
        """Return the number of the next run to begin."""
        if self._stale:
            self._read()
        return max(self._runs, default=0) + 1

    def begin_transaction(self) -> None:
        """Prepare for inserts; call it after the transaction has begun."""
        if self._stale:
            self._read()
        self._stale = True

    def end_transaction(self) -> None:
        """Show the inserted versions to readers; call it after the transaction is committed."""
        self._index.update(self._added)
        for version in self._dropped:
            del self._index[version]
        self._added.clear()
        self._dropped.clear()
        self._stale = False

    def insert(self, snapshots: Sequence[Snapshot], now: float) -> None:
        """Insert versions, and drop the versions that are no longer among the newest.

        Args:
            snapshots: the versions, oldest first.
            now: the time of the commit, in seconds since 1970.

        Raises:
            ValueError: the first version is not newer than the newest one in the database.
        """
        if snapshots and self._newest and snapshots[0].version <= self._newest[-1]:
            raise ValueError(f"version {snapshots[0].version} after {self._newest[-1]}")
        last_versions = set(self._runs.values())
        if len(snapshots) > RETAINED_VERSIONS:
            older = [s for s in snapshots[:-RETAINED_VERSIONS] if s.version in last_versions]
            snapshots = [*older, *snapshots[-RETAINED_VERSIONS:]]
        self._newest += [snapshot.version for snapshot in snapshots]
        while len(self._newest) > RETAINED_VERSIONS:
            version = self._newest.popleft()
            if version not in last_versions:
                self._drop(version)
        groups = [
            snapshots[i : i + VERSIONS_PER_ROW] for i in range(0, len(snapshots), VERSIONS_PER_ROW)
        ]
        self._connection.executemany(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
            [(self._take_slot(group), *pack_versions(group, now)) for group in groups],
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
        """Insert or update runs with their new epochs, and drop the oldest runs.

        Args:
            runs: the state of each run, oldest first, with the epochs since its last commit.
        """
        newest: dict[int, RunRecord] = {}
        for run, epochs in runs:
            stride = epoch_stride(run.request.epochs)
            retained = [progress for progress in epochs if progress.epoch % stride == 0]
            if retained:
                self._connection.execute(
                    "INSERT INTO epochs VALUES (?, ?, ?)",
                    (run.number, retained[-1].epoch, pack_epochs(retained)),
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
        released_versions = [self._runs[run.number]] if run.number in self._runs else []
        self._runs[run.number] = run.version
        for number in sorted(self._runs)[:-RETAINED_RUNS]:
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
            released_versions.append(self._runs.pop(number))
        for version in released_versions:
            if version < self._newest[0]:
                self._drop(version)


def epoch_stride(epochs: int) -> int:
    """Return n for a run of so many epochs: each n-th epoch of its curve is retained."""
    return -(-epochs // RETAINED_EPOCHS)
