"""The record of a Ray that a cluster has started, for the other commands of the same user."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import platformdirs
import psutil
from mnist37_server.errors import CannotStart


class Session(NamedTuple):
    """A running Ray that this user has started."""

    pid: int  # of the command that has started it
    started_at: float  # when that process began: its number may be another one's later
    address: str  # HOST:PORT
    token: str
    folder: str  # of Ray's files

    @property
    def is_running(self) -> bool:
        """Return whether the command runs."""
        try:
            process = psutil.Process(self.pid)
            has_ended = process.status() == psutil.STATUS_ZOMBIE
            return bool(process.create_time() == self.started_at and not has_ended)
        except psutil.NoSuchProcess:
            return False


def folder() -> Path:
    """Return the folder of the records, which only this user may read.

    Raises:
        CannotStart: there is none, and none can be made.
    """
    try:
        path = platformdirs.user_state_path("mnist37-clusters")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise CannotStart(
            f"XDG_STATE_HOME: no folder for the record of a cluster can be made: {error}; must name"
            " a folder that this user may write to"
        ) from error
    return path


@contextmanager
def recorded(address: str, token: str, ray_folder: str) -> Iterator[None]:
    """Keep a record of this process's Ray for as long as the block takes."""
    own = psutil.Process()
    session = Session(own.pid, own.create_time(), address, token, ray_folder)
    file = folder() / f"{session.pid}.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(session._asdict()))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def find(address: str | None) -> Session | None:
    """Return the record of the Ray at an address, or of the only one; None for another's Ray.

    Raises:
        CannotStart: no address is given, and there is not exactly one Ray.
    """
    sessions = list(read_all())
    if address is not None:
        return next((each for each in sessions if each.address == address), None)
    if len(sessions) == 1:
        return sessions[0]
    if not sessions:
        raise CannotStart(
            "--ray: missing; this user runs no `mnist37 cluster` here that has started a Ray"
        )
    addresses = ", ".join(each.address for each in sessions)
    raise CannotStart(f"--ray: missing; there are several: {addresses}")


def read_all() -> Iterator[Session]:
    """Yield the records of the commands that still run; delete those of others, and their files."""
    for file in sorted(folder().glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            session = Session(**json.loads(file.read_text()))
            if session.is_running:
                yield session
            else:
                shutil.rmtree(session.folder, ignore_errors=True)
                file.unlink(missing_ok=True)
