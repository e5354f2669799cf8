"""Create, open and check the SQLite database, and lock the state folder."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path

from mnist37_server.errors import CannotStart
from mnist37_server.storage.migrations import migrate
from mnist37_server.storage.tables import request_log, rows, start_log, tag_table

SCHEMA_VERSION = 5
SCHEMA = rows.SCHEMA + tag_table.SCHEMA + request_log.SCHEMA + start_log.SCHEMA
CACHE_KIB = 16_000
LOG_BYTES_MAX = 16 * 2**20

# Errors of the operating system and of SQLite that mean: the disk is full or fails. They say
# nothing against the database file itself.
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    "SQLITE_FULL",
    *(
        f"SQLITE_IOERR_{operation}"
        for operation in ("WRITE", "FSYNC", "DIR_FSYNC", "TRUNCATE", "SHMSIZE")
    ),
}


def connect(
    file: Path | None, connection_class: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """Return a connection to the database in a file, or to a new database in memory.

    Args:
        file: the database; None makes one in memory.
        connection_class: the class of the connection.
    """
    # isolation_level=None: the code begins and ends each transaction itself.
    # check_same_thread=False: several threads use a connection, and the locks of Store allow one
    # of them at a time.
    return sqlite3.connect(
        ":memory:" if file is None else file,
        isolation_level=None,
        check_same_thread=False,
        factory=connection_class,
    )


def check_files(database: Path) -> None:
    """Raise CannotStart if a file of the database is read-only, or has another name too.

    SQLite opens a read-only file without an error. It fails at the first write, when the server
    already answers calls. A file with two names could have two servers, since each locks its own
    folder; and SQLite finds the log beside one name alone.
    """
    files = (database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm"))
    for file in files:
        if file.is_symlink() or (file.exists() and file.stat().st_nlink > 1):
            raise CannotStart(
                f"--state: {file} is a link, or there is a hard link to it, so that another server"
                " may write to it too; put a copy in its place, or name another folder"
            )
        if file.exists() and not os.access(file, os.W_OK):
            raise CannotStart(
                f"--state: cannot write to {file}; make it writable for this user, or name another"
                " folder"
            )


def create_database(database: Path, connection_class: type[sqlite3.Connection]) -> None:
    """Create the database if it does not exist, atomically.

    If the process is killed meanwhile, there is no database. So an empty file is one that has lost
    its contents; SQLite would take it for a new database.

    Raises:
        sqlite3.DatabaseError: the file is empty, or it is missing and its log exists.
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
    """Set a connection up for durable commits, and create or migrate the tables if necessary.

    Raises:
        CannotStart: a later release wrote the database.
        sqlite3.DatabaseError: the database is damaged, or belongs to another program.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Some builds of SQLite overwrite deleted content with zeros. That doubles the bytes that a
    # commit writes, and this database holds no secrets.
    connection.execute("PRAGMA secure_delete = OFF")
    # The pages that each commit changes stay in memory.
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    # The log grows while another process reads the database, and is cut to this size afterwards.
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise sqlite3.DatabaseError("it is another program's")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
    elif not 1 <= schema <= SCHEMA_VERSION:
        raise CannotStart(
            f"--state: the database has schema {schema}; this release reads {SCHEMA_VERSION}"
        )
    else:
        (check_result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if check_result != "ok":
            raise sqlite3.DatabaseError(check_result.splitlines()[-1])
        if schema < SCHEMA_VERSION:
            migrate(connection, schema, SCHEMA_VERSION)


def overwrite_failed_commit(connection: sqlite3.Connection) -> None:
    """Commit a change of nothing, whose frames overwrite those of a failed commit in the log.

    Raises:
        sqlite3.Error: this commit failed too.
    """
    connection.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")


def cannot_open(folder: Path | None, error: Exception) -> CannotStart:
    """Return the refusal for a database that cannot be opened, with what the operator can do."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorname", None)
    advice = "put a backup in its place"
    if code in DISK_ERRORS:
        advice = "make room on its disk, or see whether that fails; what was committed is kept"
    return CannotStart(
        f"--state: the database in {folder} cannot be used: {error}; {advice}, or name another"
        " folder"
    )


def lock_folder(folder: Path) -> int:
    """Lock the state folder for this process, and create the folder if it does not exist.

    The operating system releases the lock when the process ends, however it ends.

    Returns:
        The descriptor of the lock file. To close it releases the lock.

    Raises:
        CannotStart: the folder is not writable, or another server uses it.
    """
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
        os.close(descriptor)
        raise CannotStart(f"--state: cannot write to {folder}: {error.strerror}") from error
    return descriptor
