"""The state that survives a crash: one SQLite file, which one process writes.

A commit is one transaction. It holds everything that its writes changed: the new versions of the
model, each with its batch cursor, and the records of the requests, each with its answer or, for a
run that is not finished, its checkpoint. With synchronous=FULL a commit returns when the operating
system reports that the data is on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist37_server.domain.commands.commands import TagChange, TagVersion
from mnist37_server.domain.position import Position
from mnist37_server.domain.records import RequestRecord, RunRecord, TagRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.domain.version_cache import VersionCache
from mnist37_server.errors import CannotStart, ShuttingDown
from mnist37_server.storage import database
from mnist37_server.storage.failures import (
    discard_failed_commit,
    may_be_in_log,
    refusal_of,
    state_lost_error,
)
from mnist37_server.storage.history import History
from mnist37_server.storage.state_files import LogWatch, StateFiles
from mnist37_server.storage.tables import request_log, rows
from mnist37_server.storage.tables.request_log import RequestLog
from mnist37_server.storage.tables.start_log import StartLog

RECENT_VERSIONS = 16  # that were read last


class Store:
    """The durable state. One thread commits; any thread may read, also during a commit.

    Args:
        folder: the state folder; None keeps the state in memory, as long as the object lives.
        connection_class: the class of the connections. Tests and benchmarks pass one that fails or
            is slow.

    Raises:
        CannotStart: the folder cannot be used; the text says why.
    """

    def __init__(
        self,
        folder: Path | None,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        # guarded by _reader_lock: _reader, writes to _recent; by _writer_lock: _writer, _starts,
        # writes to _history, _requests. In memory there is one connection, with one lock.
        self.on_lost: Callable[[], None] = lambda: None  # called once if a file was deleted
        self._is_lost = False
        # A tagged version may answer thousands of calls; a read of it takes as long as a call.
        self._recent = VersionCache(RECENT_VERSIONS)
        self._files: StateFiles | None = None  # known once the database is open
        self._reader_lock = threading.Lock()
        self._writer_lock = self._reader_lock if folder is None else threading.Lock()
        self._lock_file = None if folder is None else database.lock_folder(folder)
        file = None if folder is None else folder / "mnist37.sqlite3"
        try:
            if file is not None:
                database.check_files(file)
                database.create_database(file, connection_class)
            self._writer = database.connect(file, connection_class)
            database.prepare(self._writer)
            # A second connection lets threads read during a commit; in memory there is only one.
            self._reader = self._writer
            if file is not None:
                self._reader = database.connect(file, connection_class)
            self._history = History(self._writer)
            self.latest()  # raises if the newest version is damaged
            self._requests = RequestLog(self._writer)
            self._starts = StartLog(self._writer)
            if folder is not None and file is not None:
                self._files = StateFiles(folder / "lock", file)
            self._log_watch = LogWatch(self._files)
        except CannotStart:
            self._unlock()
            raise
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise database.cannot_open(folder, error) from error

    def latest(self) -> Snapshot | None:
        """Return the newest version; None if the state is new."""
        newest = self._history.versions.newest()
        return None if newest is None else self.version(newest)

    def version(self, version: int) -> Snapshot | None:
        """Return a version; None if it is not retained."""
        versions = self._history.versions
        slot = versions.slot_of(version)
        snapshot = None if slot is None else self._recent.get(version)
        while slot is not None and snapshot is None:
            with self._read():
                snapshot = rows.read_snapshot(self._reader, slot, version)
                if snapshot is not None:
                    self._recent.add(snapshot)
            slot, looked_up = versions.slot_of(version), slot
            if slot == looked_up:
                break
        return snapshot

    def resolve(self, tag: str) -> int | None:
        """Return the version to which a tag points; None if there is no such tag."""
        return self._history.resolve(tag)

    def tags(self) -> list[TagRecord]:
        """Return the tags of callers by name, then those of the best versions, newest run first."""
        with self._read_transaction():
            return self._history.read_tags(self._reader)

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the records of the retained versions, newest first, at most `limit`."""
        slots = self._history.versions.retained()[:limit]
        with self._read_transaction():
            return rows.read_versions(self._reader, slots)

    def runs(self, number: int | None = None) -> list[RunRecord]:
        """Return the retained runs, newest first, or only the run of this number if retained."""
        with self._read():
            return [] if number and number >= 2**63 else rows.read_runs(self._reader, number)

    def curve(self, number: int) -> list[Progress]:
        """Return the retained epochs of a run, in their order."""
        with self._read_transaction():
            return rows.read_curve(self._reader, number)

    def next_run(self) -> int:
        """Return the number of the next run to begin. Only for the thread that commits."""
        return self._history.next_run()

    def size(self) -> int:
        """Return the size of the database in bytes, without its log; 0 if it was deleted."""
        try:
            with self._read():
                (size,) = self._reader.execute(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
                ).fetchone()
        except ShuttingDown:  # metrics must be readable then too
            return 0
        return int(size)

    def find(self, request_id: str) -> RequestRecord | None:
        """Return the record of a request; None if there is none."""
        if not self._requests.may_hold(request_id):
            return None
        with self._read():
            record = request_log.find_request(self._reader, request_id)
        if self._is_lost:  # the record may be of a commit to a file that has no name any more
            raise state_lost_error()
        return record

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Hold the lock of the reader; an error of a file that was deleted is a refusal."""
        with self._reader_lock:
            try:
                yield
            except sqlite3.Error as error:
                if self._files is None or self._files.are_in_place():
                    raise
                raise state_lost_error() from error

    @contextmanager
    def _read_transaction(self) -> Iterator[None]:
        """Hold the lock of the reader, for queries that see one state of the database."""
        with self._read():
            self._reader.execute("BEGIN")  # it also checks the file's locks once for all of them
            try:
                yield
            finally:
                self._reader.execute("COMMIT")

    def commit(
        self,
        snapshots: Sequence[Snapshot],
        records: Sequence[RequestRecord],
        runs: Sequence[tuple[RunRecord, Sequence[Progress]]] = (),
    ) -> None:
        """Commit new versions with the records of their requests and runs, all or nothing.

        Args:
            snapshots: the versions, oldest first.
            records: the records of the requests that have an id.
            runs: the runs that made the versions, oldest first, each with its new epochs.

        Raises:
            Exhausted: the disk is full or fails; the state is unchanged.
            StorageBusy: another process locks the database; the state is unchanged.
            ShuttingDown: a file of the state was deleted or replaced; nothing can be stored.
        """
        with self._writer_lock, self._transaction() as now:
            self._history.insert(snapshots, runs, now)
            if records:
                self._requests.insert(records, now)

    def change_tag(
        self, change: TagChange, make_record: Callable[[int], RequestRecord | None]
    ) -> int:
        """Commit a change of a tag with its request's record; return the version. Thread-safe.

        Args:
            change: the change.
            make_record: returns the record of the request that had this version for its result;
                None for a request without an id.

        Raises:
            NotFound: there is no such tag, or the version is not retained.
            Exhausted: there are too many tags, or the disk is full or fails.
            StorageBusy: another process locks the database.
            ShuttingDown: a file of the state was deleted or replaced; nothing can be stored.
        """
        with self._writer_lock:
            version = self._history.version_of(change)
            record = make_record(version)
            with self._transaction() as now:
                if isinstance(change, TagVersion):
                    self._history.set_tag(change.name, version, now)
                else:
                    self._history.delete_tag(change.name)
                if record is not None:
                    self._requests.insert([record], now)
        return version

    def begin_start(self, start: int) -> list[Position]:
        """Begin a start, which the next commit stores; return all starts, newest first."""
        return self._starts.begin(Position(start, self._history.versions.newest() or 0))

    def commit_start(self) -> None:
        """Commit the new start by itself; it raises what `commit` raises."""
        with self._writer_lock, self._transaction():
            pass

    @contextmanager
    def _transaction(self) -> Iterator[float]:
        """Commit the changes of the block, all or nothing; the writer's lock is held.

        It yields the time of the commit, in seconds since 1970.
        """
        self._check_files()
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._history.begin_transaction()
            self._starts.insert_new()
            yield time.time()
            self._writer.execute("COMMIT")
            self._check_files()
            self._history.end_transaction()
            self._starts.end_transaction()
        except BaseException as error:
            self._roll_back()
            if may_be_in_log(error):
                discard_failed_commit(self._writer, error)
            if not isinstance(error, sqlite3.Error):
                raise
            raise refusal_of(error) from error
        self._log_watch.record_commit()

    def _roll_back(self) -> None:
        """End the transaction, if there is one, without its changes."""
        if self._writer.in_transaction:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")

    def _check_files(self) -> None:
        """Raise ShuttingDown, and call `on_lost` once, if a file was deleted or replaced."""
        if self._files is None or self._files.are_in_place():
            return
        if not self._is_lost:
            self._is_lost = True
            self.on_lost()
        raise state_lost_error()

    def log_size(self) -> int:
        """Return the size of the write-ahead log in bytes; 0 in memory."""
        return 0 if self._files is None else self._files.log_size()

    def close(self) -> None:
        """Close the files and release the lock, so that another process can use the folder."""
        with self._writer_lock:
            self._writer.close()
        if self._reader is not self._writer:
            with self._reader_lock:
                self._reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
