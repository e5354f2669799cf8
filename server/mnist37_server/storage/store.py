"""The state that survives a crash: one SQLite file, which one process writes.

A commit is one transaction. It holds everything that its writes changed: the new versions of the
model, each with its batch cursor, and the records of the requests, each with its answer or, for a
run that is not finished, its checkpoint. With synchronous=FULL a commit returns when the operating
system reports that the data is on the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist37_server.domain.records import RequestRecord, RunRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.errors import CannotStart, ShuttingDown
from mnist37_server.storage import database, request_log, rows
from mnist37_server.storage.failures import may_be_in_log, refusal_of, state_lost_error
from mnist37_server.storage.history import History
from mnist37_server.storage.request_log import RequestLog
from mnist37_server.storage.state_files import StateFiles

OVERWRITE_ATTEMPTS = 3
COMMITS_PER_LOG_CHECK = 64
LOG_BYTES_WARNING = 64 * 2**20

log = logging.getLogger(__name__)


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
        # guarded by _reader_lock: _reader; by _writer_lock: _writer, writes to _history, _requests.
        # In memory, reader and writer are one connection, with one lock.
        self.on_lost: Callable[[], None] = lambda: None  # called once if a file was deleted
        self._is_lost = False
        self._files: StateFiles | None = None  # known once the database is open
        self._commits = 0
        self._log_warning_bytes = LOG_BYTES_WARNING
        self._reader_lock = threading.Lock()
        self._writer_lock = self._reader_lock if folder is None else threading.Lock()
        self._lock_file = None if folder is None else database.lock_folder(folder)
        file = None if folder is None else folder / "mnist37.sqlite3"
        try:
            if file is not None:
                database.check_writable(file)
                database.create_database(file, connection_class)
            self._writer = database.connect(file, connection_class)
            database.prepare(self._writer)
            # A second connection lets threads read during a commit. A database in memory has only
            # one connection.
            if file is None:
                self._reader = self._writer
            else:
                self._reader = database.connect(file, connection_class)
            self._history = History(self._writer)
            self.latest()  # raises if the newest version is damaged
            self._requests = RequestLog(self._writer)
            if folder is not None and file is not None:
                self._files = StateFiles(folder / "lock", file)
        except CannotStart:
            self._unlock()
            raise
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            suggestion = database.advise_on(error)
            raise CannotStart(
                f"--state: the database in {folder} cannot be used: {error}; {suggestion}, or name"
                " another folder"
            ) from error

    def latest(self) -> Snapshot | None:
        """Return the newest version; None if the state is new."""
        newest = self._history.newest()
        return None if newest is None else self.version(newest)

    def version(self, version: int) -> Snapshot | None:
        """Return a version; None if it is not retained."""
        slot = self._history.slot_of(version)
        if slot is None:
            return None
        with self._read():
            return rows.read_snapshot(self._reader, slot, version)

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the records of the retained versions, newest first, at most `limit`."""
        slots = self._history.retained()[:limit]
        with self._read():
            self._reader.execute("BEGIN")  # one consistent view, and one check of the file's locks
            try:
                return rows.read_versions(self._reader, slots)
            finally:
                self._reader.execute("COMMIT")

    def runs(self, number: int | None = None) -> list[RunRecord]:
        """Return the retained runs, newest first, or only the run of this number if retained."""
        with self._read():
            return [] if number and number >= 2**63 else rows.read_runs(self._reader, number)

    def curve(self, number: int) -> list[Progress]:
        """Return the retained epochs of a run, in their order."""
        with self._read():
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
        now = time.time()
        with self._writer_lock:
            self._check_files()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._history.begin_transaction()
                # The runs come first: insert() retains the last version of each of them.
                self._history.insert_runs(runs)
                self._history.insert(snapshots, now)
                if records:
                    self._requests.insert(records, now)
                self._writer.execute("COMMIT")
                self._check_files()
                self._history.end_transaction()
            except BaseException as error:
                self._roll_back()
                if may_be_in_log(error):
                    self._discard_failed_commit(error)
                if not isinstance(error, sqlite3.Error):
                    raise
                raise refusal_of(error) from error
            self._watch_log()

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

    def _discard_failed_commit(self, error: BaseException) -> None:
        """Take a failed commit out of the log, or end the process.

        Its callers may be answered "nothing is applied" only when a recovery cannot apply it any
        more. Where that fails too, a recovery has to decide, before any caller is told anything.
        """
        for _ in range(OVERWRITE_ATTEMPTS):
            try:
                database.overwrite_failed_commit(self._writer)
            except sqlite3.Error:
                self._roll_back()
            else:
                return
        log.critical(
            "a commit failed (%s) and could not be taken back: the server ends, and its next start"
            " decides whether the commit is applied",
            error,
        )
        logging.shutdown()
        os._exit(1)

    def _watch_log(self) -> None:
        """Log a warning when the write-ahead log has grown, and again whenever it has doubled."""
        self._commits += 1
        if self._files is None or self._commits % COMMITS_PER_LOG_CHECK:
            return
        size = self._files.log_size()
        if size < LOG_BYTES_WARNING:
            self._log_warning_bytes = LOG_BYTES_WARNING
        elif size >= self._log_warning_bytes:
            self._log_warning_bytes = 2 * size
            log.warning(
                "the write-ahead log has %d MiB: another process, a backup perhaps, has held a read"
                " of the database since long",
                size >> 20,
            )

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
