"""The identity of the files in the state folder, which nothing else may delete or replace."""

from __future__ import annotations

import logging
import os
from pathlib import Path

UNKNOWN = (-1, -1)
COMMITS_PER_LOG_CHECK = 64
LOG_BYTES_WARNING = 64 * 2**20

log = logging.getLogger(__name__)


class StateFiles:
    """The files of an open state, as they were when it was opened.

    A file that is deleted while it is open has no name any more: what is written to it is lost with
    the process. And where the lock file is deleted, a second server can lock a new one.

    Args:
        lock: the lock file.
        database: the database; its write-ahead log lies beside it.
    """

    def __init__(self, lock: Path, database: Path) -> None:
        self._paths = (lock, database, database.with_name(f"{database.name}-wal"))
        self._identities = self._look()

    def are_in_place(self) -> bool:
        """Return whether each file is still the one that was opened, as far as can be known."""
        return all(
            now in (before, UNKNOWN)
            for now, before in zip(self._look(), self._identities, strict=True)
        )

    def log_size(self) -> int:
        """Return the size of the write-ahead log in bytes; 0 if it was deleted."""
        try:
            return self._paths[-1].stat().st_size
        except OSError:
            return 0

    def _look(self) -> list[tuple[int, int] | None]:
        identities: list[tuple[int, int] | None] = []
        for path in self._paths:
            try:
                status = os.stat(path)  # noqa: PTH116 - it runs at each commit; a Path takes longer
            except FileNotFoundError:
                identities.append(None)
            except OSError:  # the disk fails, which does not mean that the file is gone
                identities.append(UNKNOWN)
            else:
                identities.append((status.st_dev, status.st_ino))
        return identities


class LogWatch:
    """A watch of the write-ahead log's size.

    It logs a warning when the log has grown, and again whenever it has doubled.

    Args:
        files: the state's files; None in memory, where there is no log.
    """

    def __init__(self, files: StateFiles | None) -> None:
        self._files = files
        self._commits = 0
        self._warning_bytes = LOG_BYTES_WARNING

    def record_commit(self) -> None:
        """Count a commit, and look at the log once in a while."""
        self._commits += 1
        if self._files is None or self._commits % COMMITS_PER_LOG_CHECK:
            return
        size = self._files.log_size()
        if size < LOG_BYTES_WARNING:
            self._warning_bytes = LOG_BYTES_WARNING
        elif size >= self._warning_bytes:
            self._warning_bytes = 2 * size
            log.warning(
                "the write-ahead log has %d MiB: another process, a backup perhaps, has held a read"
                " of the database since long",
                size >> 20,
            )
