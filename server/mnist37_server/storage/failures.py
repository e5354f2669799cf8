"""Refusals for a failed commit, and whether a recovery could still apply it."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress

from mnist37_server.errors import Exhausted, Reason, Refusal, ShuttingDown, StorageBusy
from mnist37_server.storage.database import overwrite_failed_commit

OVERWRITE_ATTEMPTS = 3

# After these errors the log has no complete commit. SQLite writes a commit's last frame with its
# mark last, and fails before it; or it fails before it writes at all.
NOTHING_IN_LOG = (
    "SQLITE_FULL",
    "SQLITE_IOERR_WRITE",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
)


log = logging.getLogger(__name__)


def may_be_in_log(error: BaseException) -> bool:
    """Return whether a recovery could find a failed commit in the log.

    If a sync fails, the commit's frames are in the file all the same: a process that opens the
    database after a crash would apply them.
    """
    if isinstance(error, MemoryError):
        return True
    name = getattr(error, "sqlite_errorname", None)
    return name is not None and not name.startswith(NOTHING_IN_LOG)


def discard_failed_commit(connection: sqlite3.Connection, error: BaseException) -> None:
    """Take a failed commit out of the log, or end the process.

    Its callers may be answered "nothing is applied" only when a recovery cannot apply it any more.
    Where that fails too, a recovery has to decide, before any caller is told anything.

    Args:
        connection: the connection whose commit failed; its transaction is rolled back.
        error: why the commit failed.
    """
    for _ in range(OVERWRITE_ATTEMPTS):
        try:
            overwrite_failed_commit(connection)
        except sqlite3.Error:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
        else:
            return
    log.critical(
        "a commit failed (%s) and could not be taken back: the server ends, and its next start"
        " decides whether the commit is applied",
        error,
    )
    logging.shutdown()
    os._exit(1)


def refusal_of(error: sqlite3.Error) -> Refusal:
    """Return the refusal for the writes of a failed commit, which is not applied."""
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageBusy(
            "another process locks the database for writing; nothing is applied, try again later"
        )
    return Exhausted(
        f"the state could not be stored, nothing is applied: {error}", Reason.STORAGE_FULL
    )


def state_lost_error() -> ShuttingDown:
    """Return the refusal of all writes after the files of the state were deleted or replaced."""
    return ShuttingDown(
        "a file of the state folder was deleted or replaced, so the server can store nothing until"
        " it is started again; it still predicts",
        Reason.STATE_LOST,
    )
