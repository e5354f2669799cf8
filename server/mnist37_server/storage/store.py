"""What must survive a crash: one SQLite file, written by one process.

A commit is one transaction. It holds all that its updates changed: the new versions of the model,
each with its place in the order of the images, and the requests that made them, each with its
answer or, for a run that is not finished, with how far it came. With synchronous=FULL a commit
returns once the operating system says that the disk has it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mnist37_server.domain.commands import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.errors import CannotStart, Exhausted, Reason
from mnist37_server.storage import history
from mnist37_server.storage.history import History, RunRecord, Version
from mnist37_server.storage.id_filter import IdFilter
from mnist37_server.storage.migrations import migrate

SCHEMA_VERSION = 3
SCHEMA = f"""
{history.SCHEMA}
CREATE TABLE requests (
    number      INTEGER PRIMARY KEY,    -- in the order of their first commit
    request_id  TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL,          -- of the method and the values
    version     INTEGER NOT NULL,       -- of the model after its last commit
    answer      TEXT,                   -- JSON; NULL while a run is not finished
    place       TEXT,                   -- JSON; how far an unfinished run came
    committed   REAL NOT NULL           -- seconds since 1970, by the clock of the wall
);
"""

connection_class = sqlite3.Connection  # the tests put one here that fails where they want it to

# What the system or SQLite says where the disk is full or fails, and not the file.
NOT_WRITTEN = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    "SQLITE_FULL",
    *(f"SQLITE_IOERR_{what}" for what in ("WRITE", "FSYNC", "DIR_FSYNC", "TRUNCATE", "SHMSIZE")),
}

KEPT_REQUESTS = 10_000
KEPT_SECONDS = 24 * 3600
CACHE_KIB = 16_000
FORGET_EVERY = 64  # requests that are new; then the oldest are looked at
FORGOTTEN_AT_ONCE = 256  # requests: more than come, so that one gets even


class RunPlace(NamedTuple):
    """How far a run came."""

    steps: int  # mini-batches done since the run began
    loss: int  # summed over the images of the epoch under way, in LOSS_UNITs
    elapsed: float  # seconds of training
    run: int  # its number
    began: float  # seconds since 1970


class Record(NamedTuple):
    """What is remembered of a request that has an id."""

    request_id: str
    fingerprint: bytes
    version: int
    answer: tuple[float, ...] | None  # None: a run that is not finished
    place: RunPlace | None = None


class State:
    """The durable state. One thread commits; any thread may look things up meanwhile.

    Args:
        folder: where the state is kept; None keeps it in memory, for as long as the object lives.

    Raises:
        CannotStart: the folder cannot be used; says why.
    """

    def __init__(self, folder: Path | None) -> None:
        self._unforgotten = 0  # requests that came since the oldest were looked at
        self._reading = threading.Lock()
        self._writing = self._reading if folder is None else threading.Lock()
        self._lock_file = None if folder is None else _lock(folder)
        database = ":memory:" if folder is None else str(folder / "mnist37.sqlite3")
        try:
            if folder is not None:
                _check_writable(Path(database))
                _create(Path(database))
            self._writer = _connect(database)
            _prepare(self._writer)
            # A second connection lets look-ups go on during a commit; memory has just the one.
            self._reader = self._writer if folder is None else _connect(database)
            self._history = History(self._writer)
            self.latest()  # is it whole?
            ids = self._reader.execute("SELECT request_id FROM requests")
            self._ids = IdFilter(known for (known,) in ids)
        except CannotStart:
            self._unlock()
            raise
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise CannotStart(
                f"--state: the database in {folder} cannot be used: {error}; {_advice(error)}, or"
                " name another folder"
            ) from error

    def latest(self) -> Snapshot | None:
        """The newest version; None in a state that was just made."""
        newest = self._history.newest()
        return None if newest is None else self.version(newest)

    def version(self, version: int) -> Snapshot | None:
        """A version that is kept."""
        slot = self._history.slot(version)
        if slot is None:
            return None
        with self._reading:
            return history.snapshot(self._reader, slot, version)

    def versions(self, limit: int) -> list[Version]:
        """What is kept, newest first."""
        wanted = self._history.kept()[:limit]
        with self._reading:
            self._reader.execute("BEGIN")  # one view, and one look for locks
            try:
                return history.versions(self._reader, wanted)
            finally:
                self._reader.execute("COMMIT")

    def runs(self, number: int | None = None) -> list[RunRecord]:
        """The runs that are kept, newest first; or the one of this number, if it is."""
        with self._reading:
            return [] if number and number >= 2**63 else history.runs(self._reader, number)

    def curve(self, number: int) -> list[Progress]:
        """The epochs that are kept of a run."""
        with self._reading:
            return history.curve(self._reader, number)

    def next_run(self) -> int:
        """The number of the next run to begin; for the thread that commits."""
        return self._history.next_run()

    def size(self) -> int:
        """Bytes that the database has, without its log."""
        with self._reading:
            (size,) = self._reader.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
        return int(size)

    def find(self, request_id: str) -> Record | None:
        """What is remembered of a request."""
        if request_id not in self._ids:
            return None
        with self._reading:
            row = self._reader.execute(
                "SELECT request_id, fingerprint, version, answer, place FROM requests"
                " WHERE request_id = ?",
                (request_id,),
            ).fetchone()
        if row is None:
            return None
        answer = None if row[3] is None else tuple(json.loads(row[3]))
        place = None if row[4] is None else RunPlace(*json.loads(row[4]))
        return Record(row[0], row[1], row[2], answer, place)

    def commit(
        self,
        snapshots: Sequence[Snapshot],
        records: Sequence[Record],
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
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._history.begin()
                self._history.insert_runs(runs)  # first: the versions that they end on are kept
                self._history.insert(snapshots, now)
                if records:
                    self._insert_records(records, now)
                self._writer.execute("COMMIT")
                self._history.committed()
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):
                    raise
                raise Exhausted(
                    f"the state could not be stored, nothing is applied: {error}", Reason.NO_ROOM
                ) from error

    def close(self) -> None:
        """Ends all use of the files, so that another process may take them."""
        with self._writing:
            self._writer.close()
        if self._reader is not self._writer:
            with self._reading:
                self._reader.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)

    def _insert_records(self, records: Sequence[Record], now: float) -> None:
        newest = {record.request_id: record for record in records}
        for request_id in newest:
            self._ids.add(request_id)
        self._writer.executemany(
            "INSERT INTO requests (request_id, fingerprint, version, answer, place, committed)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (request_id) DO UPDATE SET"
            " version = excluded.version, answer = excluded.answer, place = excluded.place,"
            " committed = excluded.committed",
            [
                (r.request_id, r.fingerprint, r.version, _json(r.answer), _json(r.place), now)
                for r in newest.values()
            ],
        )
        self._unforgotten += len(newest)
        if self._unforgotten < FORGET_EVERY:
            return
        self._unforgotten = 0
        # Only the oldest few are looked at: a day's requests may be millions.
        self._writer.execute(
            "DELETE FROM requests WHERE number < (SELECT min(number) FROM requests) + ?"
            " AND number <= (SELECT max(number) FROM requests) - ? AND committed < ?",
            (FORGOTTEN_AT_ONCE, KEPT_REQUESTS, now - KEPT_SECONDS),
        )


def _json(values: tuple[float, ...] | None) -> str | None:
    # Of finite numbers Python writes a list as JSON does; json.dumps takes three times as long.
    return None if values is None else str([*values])


def _connect(database: str) -> sqlite3.Connection:
    # Transactions are begun and ended by hand; the locks of State keep the threads apart.
    return sqlite3.connect(
        database, isolation_level=None, check_same_thread=False, factory=connection_class
    )


def _check_writable(database: Path) -> None:
    """Raises CannotStart if a file of the database may only be read.

    SQLite would open it all the same, and fail at the first write, when calls are already answered.
    """
    for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        if file.exists() and not os.access(file, os.W_OK):
            raise CannotStart(
                f"--state: cannot write to {file}; make it writable for this user, or name another"
                " folder"
            )


def _create(database: Path) -> None:
    """Makes the database where there is none: whole, or not at all if this process is killed.

    So an empty file is one that was lost, though to SQLite it is a new database.
    """
    if database.exists():
        if database.stat().st_size == 0:
            raise sqlite3.DatabaseError("the file is empty")
        return
    if database.with_name(database.name + "-wal").exists():
        raise sqlite3.DatabaseError("the file is missing, though its log is there")
    new = database.with_suffix(".new")
    new.unlink(missing_ok=True)
    connection = _connect(str(new))
    _prepare(connection)
    connection.close()
    new.rename(database)
    folder = os.open(database.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Some builds overwrite what is deleted, which doubles what a commit writes; here it is no
    # secret. And the pages that commits change again and again stay in memory.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise sqlite3.DatabaseError("it is another program's")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
    elif not 1 <= found <= SCHEMA_VERSION:
        raise CannotStart(
            f"--state: the database has schema {found}; this release reads {SCHEMA_VERSION}"
        )
    else:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.splitlines()[-1])
        if found < SCHEMA_VERSION:
            migrate(connection, found, SCHEMA_VERSION)


def _advice(error: Exception) -> str:
    """What to do about a database that could not be opened."""
    said = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorname", None)
    if said in NOT_WRITTEN:
        return "make room on its disk, or see whether that fails; what was committed is kept"
    return "put a backup in its place"


def _lock(folder: Path) -> int:
    """Makes the folder this process's own until it ends; the lock dies with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(
            f"--state: cannot write to {folder}: {error.strerror}; name a folder that can be"
            " written, or :memory: to keep nothing"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise CannotStart(
            f"--state: {folder} is in use by another server, process {holder}; name another folder"
        ) from error
    try:
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise CannotStart(f"--state: cannot write to {folder}: {error.strerror}") from error
    return lock
