"""The folder of one front, which only this user may enter: its sockets, and its tokens."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist37_server.domain.address import SOCKET_PATH_BYTES_MAX
from mnist37_server.errors import CannotStart

PREFIX = "mnist37-front."
BYTES_MAX = SOCKET_PATH_BYTES_MAX - len("/internal.sock")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a folder in TMPDIR, and delete it at the end, with those that killed fronts have left.

    A front locks its folder for as long as it lives, however it ends.

    Raises:
        CannotStart: it cannot be made, or its path is too long for the files of sockets.
    """
    try:
        delete_abandoned(Path(tempfile.gettempdir()))
        folder, lock = make_locked()
    except OSError as error:
        raise CannotStart(
            f"TMPDIR: no folder for the front's sockets can be made: {error.strerror}; must name a"
            " folder that this user may write to"
        ) from error
    try:
        size = len(os.fsencode(folder))
        if size > BYTES_MAX:
            raise CannotStart(
                f"TMPDIR: {folder.parent} is too long for the path of a socket file; must have at"
                f" most {BYTES_MAX - size + len(os.fsencode(folder.parent))} bytes"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def delete_abandoned(parent: Path) -> None:
    """Delete the folders of this user's fronts that nobody holds a lock on."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            # A link of somebody else's is not followed.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def make_locked() -> tuple[Path, int]:
    """Return a new folder and the descriptor that holds its lock; raise OSError if there is none.

    Before the lock is taken, another front may take the folder for an abandoned one.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX)).absolute()
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # without locks, this file system's folders are never deleted
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)
