"""Refusals for a failed commit, and whether a recovery could still apply it."""

from __future__ import annotations

import sqlite3

from mnist37_server.errors import Exhausted, Reason, Refusal, ShuttingDown, StorageBusy

# After these errors the log has no complete commit. SQLite writes a commit's last frame with its
# mark last, and fails before it; or it fails before it writes at all.
NOTHING_IN_LOG = (
    "SQLITE_FULL",
    "SQLITE_IOERR_WRITE",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
)


def may_be_in_log(error: BaseException) -> bool:
    """Return whether a recovery could find a failed commit in the log.

    If a sync fails, the commit's frames are in the file all the same: a process that opens the
    database after a crash would apply them.
    """
    if isinstance(error, MemoryError):
        return True
    name = getattr(error, "sqlite_errorname", None)
    return name is not None and not name.startswith(NOTHING_IN_LOG)


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
