"""The retained versions: the slot of each in the table, and which of them to drop."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.storage.tables.rows import (
    PARAMETER_BYTES,
    VERSIONS_PER_ROW,
    find_snapshot,
    pack_versions,
    unpack_versions,
)

RETAINED_VERSIONS = 1_000  # the newest; pinned ones besides


class VersionSlots:
    """The retained versions, with an index in memory of the slot of each.

    A slot is a row of the table `versions`. Thanks to the index a commit runs no query to find a
    version, or to find what to drop. Retained are the newest versions and all that are pinned. To
    drop a version removes it from the index only. When a slot holds no retained version any more,
    an insert of a later transaction overwrites its row.

    Readers, in any thread, see the committed versions. All other methods are for the thread that
    commits; `end_transaction` shows its changes to readers.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._index: dict[int, int] = {}  # the slot of each committed version; read by all threads

    def read(self, pinned: Iterable[int]) -> None:
        """Read the index from the table.

        Args:
            pinned: the pinned versions; one that is pinned twice comes twice.

        Raises:
            sqlite3.DatabaseError: a row is damaged.
        """
        self._pins = Counter(pinned)
        rows = self._connection.execute("SELECT slot, about, length(parameters) FROM versions")
        versions_by_slot: dict[int, list[int]] = {}
        for slot, about, size in rows:
            versions = [version for version, *_ in unpack_versions(about)]
            if size != len(versions) * PARAMETER_BYTES:
                raise sqlite3.DatabaseError(f"the row of version {versions[-1]} is damaged")
            versions_by_slot[slot] = versions
        self._slot_count = max(versions_by_slot, default=0)
        # The smallest row comes last, for a version that `isolate` has copied.
        slot_by_version = {
            version: slot
            for slot in sorted(versions_by_slot, key=lambda slot: -len(versions_by_slot[slot]))
            for version in versions_by_slot[slot]
        }
        self._newest = deque(sorted(slot_by_version)[-RETAINED_VERSIONS:])
        retained = (self._pins.keys() & slot_by_version.keys()) | set(self._newest)
        self._index = {version: slot_by_version[version] for version in retained}
        self._versions_in_slot = Counter(self._index.values())  # how many are retained, by slot
        self._free = [slot for slot in versions_by_slot if slot not in self._versions_in_slot]
        self._added: dict[int, int] = {}
        self._dropped: list[int] = []
        self._freed: list[int] = []

    def newest(self) -> int | None:
        """Return the newest version; None if there is none yet."""
        return self._newest[-1] if self._newest else None

    def retained(self) -> list[tuple[int, int]]:
        """Return the retained versions, newest first, each with its slot. Thread-safe."""
        return sorted(self._index.copy().items(), reverse=True)

    def slot_of(self, version: int) -> int | None:
        """Return the slot of a version; None if it is not retained. Thread-safe."""
        return self._index.get(version)

    def end_transaction(self) -> None:
        """Show the changes to readers; call it after the transaction is committed."""
        self._index.update(self._added)
        for version in self._dropped:
            del self._index[version]
        # Not earlier: a reader that has looked a version up must find it in its slot.
        self._free += self._freed
        self._added.clear()
        self._dropped.clear()
        self._freed.clear()

    def pin(self, version: int) -> None:
        """Retain a version, which may be inserted later in the transaction, until `unpin`."""
        self._pins[version] += 1

    def unpin(self, version: int) -> None:
        """Take one pin off a version; without a pin it is dropped if it is not among the newest."""
        self._pins[version] -= 1
        if not self._pins[version]:
            del self._pins[version]
            if self._newest and version < self._newest[0]:
                self._drop(version)

    def insert(self, snapshots: Sequence[Snapshot], alone: Collection[int], now: float) -> None:
        """Insert versions, and drop those that are neither pinned nor among the newest any more.

        Args:
            snapshots: the versions, oldest first.
            alone: the versions that get a row of their own, since they may stay for long.
            now: the time of the commit, in seconds since 1970.

        Raises:
            ValueError: the first version is not newer than the newest one in the database.
        """
        if snapshots and self._newest and snapshots[0].version <= self._newest[-1]:
            raise ValueError(f"version {snapshots[0].version} after {self._newest[-1]}")
        if len(snapshots) > RETAINED_VERSIONS:
            older = [s for s in snapshots[:-RETAINED_VERSIONS] if s.version in self._pins]
            snapshots = [*older, *snapshots[-RETAINED_VERSIONS:]]
        self._newest += [snapshot.version for snapshot in snapshots]
        while len(self._newest) > RETAINED_VERSIONS:
            version = self._newest.popleft()
            if version not in self._pins:
                self._drop(version)
        groups = [[snapshot] for snapshot in snapshots if snapshot.version in alone]
        others = [snapshot for snapshot in snapshots if snapshot.version not in alone]
        groups += [
            others[i : i + VERSIONS_PER_ROW] for i in range(0, len(others), VERSIONS_PER_ROW)
        ]
        self._connection.executemany(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
            [(self._take_slot(group), *pack_versions(group, now)) for group in groups],
        )

    def isolate(self, version: int) -> None:
        """Copy a retained version to a row of its own, if its row has others.

        So a version that stays for long costs the room of one version.
        """
        old_slot = self._index[version]
        about, committed_at, parameters = self._connection.execute(
            "SELECT about, committed, parameters FROM versions WHERE slot = ?", (old_slot,)
        ).fetchone()
        if len(parameters) == PARAMETER_BYTES:
            return
        snapshot = find_snapshot(about, parameters, version)
        if snapshot is None:
            raise sqlite3.DatabaseError(f"the row of version {version} is damaged")
        self._connection.execute(
            "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
            (self._take_slot([snapshot]), *pack_versions([snapshot], committed_at)),
        )
        self._release(old_slot)

    def _take_slot(self, snapshots: Sequence[Snapshot]) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            self._slot_count += 1
            slot = self._slot_count
        for snapshot in snapshots:
            self._added[snapshot.version] = slot
        self._versions_in_slot[slot] = len(snapshots)
        return slot

    def _drop(self, version: int) -> None:
        slot = self._index.get(version)
        if slot is not None:
            self._dropped.append(version)
            self._release(slot)

    def _release(self, slot: int) -> None:
        """Count one retained version less in a slot, which is free without any."""
        self._versions_in_slot[slot] -= 1
        if not self._versions_in_slot[slot]:
            self._freed.append(slot)
