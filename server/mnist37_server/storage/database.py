"""The SQLite database: makes, opens and checks it, and locks its folder."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path

from mnist37_server.errors import CannotStart
from mnist37_server.storage import request_log, rows
from mnist37_server.storage.migrations import migrate

SCHEMA_VERSION = 3
SCHEMA = rows.SCHEMA + request_log.SCHEMA
CACHE_KIB = 16_000

# What the system or SQLite says where the disk is full or fails, and not the file.
NOT_WRITTEN = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    "SQLITE_FULL",
    *(f"SQLITE_IOERR_{what}" for what in ("WRITE", "FSYNC", "DIR_FSYNC", "TRUNCATE", "SHMSIZE")),
}


def connect(
    file: Path | None, connection_class: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """Return a connection to the database in a file, or to a new one in memory."""
    # Transactions are begun and ended by hand; the locks of State keep the threads apart.
    return sqlite3.connect(
        ":memory:" if file is None else file,
        isolation_level=None,
        check_same_thread=False,
        factory=connection_class,
    )


def check_writable(database: Path) -> None:
    """Raises CannotStart if a file of the database may only be read.

    SQLite would open it all the same, and fail at the first write, when calls are already answered.
    """
    for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        if file.exists() and not os.access(file, os.W_OK):
            raise CannotStart(
                f"--state: cannot write to {file}; make it writable for this user, or name another"
                " folder"
            )


def create_database(database: Path, connection_class: type[sqlite3.Connection]) -> None:
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
    connection = connect(new, connection_class)
    prepare(connection)
    connection.close()
    new.rename(database)
    folder = os.open(database.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def prepare(connection: sqlite3.Connection) -> None:
    """Set a connection up for durable commits; make the tables where there are none yet.

    Raises:
        CannotStart: the database is of a later release.
        sqlite3.DatabaseError: the database is damaged, or another program's.
    """
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


def advise_on(error: Exception) -> str:
    """What to do about a database that could not be opened."""
    said = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorname", None)
    if said in NOT_WRITTEN:
        return "make room on its disk, or see whether that fails; what was committed is kept"
    return "put a backup in its place"


def lock_folder(folder: Path) -> int:
    """Makes the folder this process's own until it ends; the lock dies with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(
            f"--state: cannot write to {folder}: {error.strerror}; name a folder that can be"
            " written, or :memory: to keep nothing"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CannotStart(
            f"--state: {folder} is in use by another server, process {holder}; name another folder"
        ) from error
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise CannotStart(f"--state: cannot write to {folder}: {error.strerror}") from error
    return descriptor
