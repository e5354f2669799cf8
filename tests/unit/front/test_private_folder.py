"""Tests of a front's folder: none stays, whatever ends the front, and no living one is lost."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mnist37_front.private_folder import PREFIX, private_folder

KILLED = """
import os, signal
from mnist37_front.private_folder import private_folder
with private_folder() as folder:
    (folder / "token").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_this_users_alone_and_does_not_stay(short_folder: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == short_folder
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "token").touch()
    assert not list(short_folder.iterdir())


def test_the_next_front_deletes_what_a_killed_one_has_left(short_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = short_folder.iterdir()
    with private_folder() as folder:
        assert list(short_folder.iterdir()) == [folder]
        assert folder != left


def test_a_folder_in_use_and_what_is_no_folder_of_a_front_stay(short_folder: Path) -> None:
    others = short_folder / "others"
    others.mkdir()
    (short_folder / f"{PREFIX}link").symlink_to(others)
    (short_folder / f"{PREFIX}file").touch()
    before = set(short_folder.iterdir())
    with private_folder() as first, private_folder() as second:
        assert set(short_folder.iterdir()) == before | {first, second}
    assert set(short_folder.iterdir()) == before


def test_a_folder_of_another_user_stays(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_folder / f"{PREFIX}other").mkdir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with private_folder():
        assert (short_folder / f"{PREFIX}other").exists()


def test_a_folder_that_another_front_takes_for_abandoned_is_made_anew(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    lock = fcntl.flock

    def lose(descriptor: int, operation: int) -> Any:
        made.extend(short_folder.iterdir())
        if len(made) == 1:
            made[0].rmdir()
        return lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lose)
    with private_folder() as folder:
        assert folder == made[-1] != made[0]
        assert folder.is_dir()
