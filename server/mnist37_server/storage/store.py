"""What must survive a crash: one SQLite file, written by one process.

A commit is one transaction. It holds all that its updates changed: the new versions of the model,
each with its place in the order of the images, and the requests that made them, each with its
answer or, for a run that is not finished, with how far it came. With synchronous=FULL a commit
returns once the operating system says that the disk has it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mnist37_server.domain.records import RequestRecord, RunRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.errors import CannotStart, Exhausted, Reason
from mnist37_server.storage import database, request_log, rows
from mnist37_server.storage.history import History
from mnist37_server.storage.request_log import RequestLog


class Store:
    """The durable state. One thread commits; any thread may look things up meanwhile.

    Args:
        folder: where the state is kept; None keeps it in memory, for as long as the object lives.
        connection_class: of the connections; tests and benchmarks have one that fails or is slow.

    Raises:
        CannotStart: the folder cannot be used; says why.
    """

    def __init__(
        self,
        folder: Path | None,
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
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
            # A second connection lets look-ups go on during a commit; memory has just the one.
            if file is None:
                self._reader = self._writer
            else:
                self._reader = database.connect(file, connection_class)
            self._history = History(self._writer)
            self.latest()  # is it whole?
            self._requests = RequestLog(self._writer)
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
        """The newest version; None in a state that was just made."""
        newest = self._history.newest()
        return None if newest is None else self.version(newest)

    def version(self, version: int) -> Snapshot | None:
        """A version that is kept."""
        slot = self._history.slot_of(version)
        if slot is None:
            return None
        with self._reader_lock:
            return rows.read_snapshot(self._reader, slot, version)

    def versions(self, limit: int) -> list[VersionRecord]:
        """What is kept, newest first."""
        wanted = self._history.retained()[:limit]
        with self._reader_lock:
            self._reader.execute("BEGIN")  # one view, and one look for locks
            try:
                return rows.read_versions(self._reader, wanted)
            finally:
                self._reader.execute("COMMIT")

    def runs(self, number: int | None = None) -> list[RunRecord]:
        """The runs that are kept, newest first; or the one of this number, if it is."""
        with self._reader_lock:
            return [] if number and number >= 2**63 else rows.read_runs(self._reader, number)

    def curve(self, number: int) -> list[Progress]:
        """The epochs that are kept of a run."""
        with self._reader_lock:
            return rows.read_curve(self._reader, number)

    def next_run(self) -> int:
        """The number of the next run to begin; for the thread that commits."""
        return self._history.next_run()

    def size(self) -> int:
        """Bytes that the database has, without its log."""
        with self._reader_lock:
            (size,) = self._reader.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
        return int(size)

    def find(self, request_id: str) -> RequestRecord | None:
        """What is remembered of a request."""
        if not self._requests.may_hold(request_id):
            return None
        with self._reader_lock:
            return request_log.find_request(self._reader, request_id)

    def commit(
        self,
        snapshots: Sequence[Snapshot],
        records: Sequence[RequestRecord],
        runs: Sequence[tuple[RunRecord, Sequence[Progress]]] = (),
    ) -> None:
        """Stores new versions and what is to be remembered of their requests, all or nothing.

        Args:
            snapshots: the versions, oldest first.
            records: of the requests that have an id.
            runs: those that made them, oldest first, with the epochs that are new.

        Raises:
            Exhausted: there is no room, or the disk fails; the state is as it was.
        """
        now = time.time()
        with self._writer_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._history.begin_transaction()
                self._history.insert_runs(runs)  # first: the versions that they end on are kept
                self._history.insert(snapshots, now)
                if records:
                    self._requests.insert(records, now)
                self._writer.execute("COMMIT")
                self._history.end_transaction()
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                raise Exhausted(
                    f"the state could not be stored, nothing is applied: {error}",
                    Reason.STORAGE_FULL,
                ) from error

    def close(self) -> None:
        """Ends all use of the files, so that another process may take them."""
        with self._writer_lock:
            self._writer.close()
        if self._reader is not self._writer:
            with self._reader_lock:
                self._reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
