"""The retained versions, runs and tags, which change together."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from mnist37_server.domain.commands.checks import BEST_TAG
from mnist37_server.domain.commands.commands import DeleteTag, TagChange
from mnist37_server.domain.records import RunRecord, TagRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.errors import Exhausted, Reason, tag_unknown, version_not_retained
from mnist37_server.storage.tables import rows
from mnist37_server.storage.tables.run_log import RunLog
from mnist37_server.storage.tables.tag_table import TAGS_MAX, TagTable
from mnist37_server.storage.tables.version_slots import VersionSlots

BEST_PREFIX = "best@"  # of the server's tags; the number of a run follows


class History:
    """The retained versions, runs and tags.

    Readers, in any thread, see what is committed. All other methods are for the thread that
    commits. It calls `begin_transaction`, then the changes, then `end_transaction`. Without
    `end_transaction` the changes do not count: the next transaction reads the tables again.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.versions = VersionSlots(connection)
        self.tags = TagTable(connection)
        self.runs = RunLog(connection, self.versions, self.tags.points_into)
        self._read()

    def _read(self) -> None:
        self.tags.read()
        self.runs.read()
        tagged = (tag.version for tag in self.tags.committed().values())
        self.versions.read(chain(tagged, self.runs.pinned_versions()))
        self._is_stale = False  # whether there are changes that are not committed
        self._only_versions = True  # whether these changes are neither of runs nor of tags

    def begin_transaction(self) -> None:
        """Prepare for changes; call it after the transaction has begun."""
        if self._is_stale:
            self._read()
        self._is_stale = True

    def end_transaction(self) -> None:
        """Show the changes to readers; call it after the transaction is committed."""
        self.versions.end_transaction()
        if not self._only_versions:
            self.tags.end_transaction()
            self.runs.end_transaction()
        self._is_stale = False
        self._only_versions = True

    def next_run(self) -> int:
        """Return the number of the next run to begin."""
        if self._is_stale:
            self._read()
        return self.runs.next_run()

    def insert(
        self,
        snapshots: Sequence[Snapshot],
        runs: Sequence[tuple[RunRecord, Sequence[Progress]]],
        now: float,
    ) -> None:
        """Insert versions, and the runs that made them.

        Args:
            snapshots: the versions, oldest first.
            runs: the state of each run, oldest first, with the epochs since its last commit.
            now: the time of the commit, in seconds since 1970.
        """
        best: set[int] = set()
        if runs:
            best = self.runs.insert(runs)  # first: it pins versions that are inserted then
            self._only_versions = False
        self.versions.insert(snapshots, best, now)

    def version_of(self, change: TagChange) -> int:
        """Return the version to which a change points a tag, or to which the deleted tag points.

        Raises:
            NotFound: there is no such tag, or the version is not retained.
            Exhausted: there are too many tags.
        """
        if self._is_stale:
            self._read()
        newest = self.versions.newest()
        assert newest is not None
        if isinstance(change, DeleteTag):
            tag = self.tags.get(change.name)
            if tag is None:
                raise tag_unknown(change.name, "name")
            return tag.version
        version = newest if change.version is None else change.version
        if isinstance(version, str):
            tagged = self.resolve(version)
            if tagged is None:
                raise tag_unknown(version)
            version = tagged
        if self.versions.slot_of(version) is None:
            raise version_not_retained(version, newest)
        if self.tags.get(change.name) is None and len(self.tags) >= TAGS_MAX:
            raise Exhausted(
                f"there are {TAGS_MAX} tags already; delete one, or move one", Reason.TOO_MANY_TAGS
            )
        return version

    def set_tag(self, name: str, version: int, now: float) -> None:
        """Insert a tag, or move the tag of this name, to a retained version."""
        slot = self.versions.slot_of(version)
        assert slot is not None
        (record,) = rows.read_versions(self._connection, [(version, slot)])
        self._only_versions = False
        self.versions.isolate(version)
        self.versions.pin(version)
        earlier = self.tags.get(name)
        self.tags.set(TagRecord(name, version, record.run, now))
        if earlier is not None:
            self._release(earlier)

    def delete_tag(self, name: str) -> None:
        """Delete a tag."""
        tag = self.tags.get(name)
        assert tag is not None
        self._only_versions = False
        self.tags.delete(name)
        self._release(tag)

    def _release(self, tag: TagRecord) -> None:
        """Drop what was retained for a tag alone."""
        self.versions.unpin(tag.version)
        if tag.run is not None:
            self.runs.drop_if_old(tag.run)

    def read_tags(self, reader: sqlite3.Connection) -> list[TagRecord]:
        """Return the tags of callers by name, then those of the best versions, newest run first.

        Thread-safe with a connection that no other thread uses meanwhile.
        """
        best = self.runs.best_versions()
        slots = [(version, self.versions.slot_of(version)) for version in best.values()]
        records = rows.read_versions(reader, [(v, slot) for v, slot in slots if slot is not None])
        times = {record.version: record.committed_at for record in records}
        return [
            *sorted(self.tags.committed().values()),
            *(
                TagRecord(f"{BEST_PREFIX}{run}", version, run, times[version])
                for run, version in sorted(best.items(), reverse=True)
                if version in times  # it may have been dropped since the look-up
            ),
        ]

    def resolve(self, tag: str) -> int | None:
        """Return the version to which a tag points; None if there is no such tag. Thread-safe."""
        if BEST_TAG.fullmatch(tag):
            run = int(tag.removeprefix(BEST_PREFIX))
            return self.runs.best_versions().get(run)
        record = self.tags.committed().get(tag)
        return None if record is None else record.version
