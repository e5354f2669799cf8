"""Tests of the end of Envoy."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import pytest
from mnist37_front.envoy.process import Envoy
from mnist37_front.settings import FrontSettings


class RunningProcess:
    """A process that has not ended."""

    def poll(self) -> None:
        """Say so."""


class Admin:
    """An administration that answers, or does not."""

    def __init__(self, answers: bool) -> None:
        self.drains = 0
        self._answers = answers

    def drain(self) -> None:
        """Count the call."""
        self.drains += 1
        if not self._answers:
            raise ConnectionError


@pytest.fixture
def envoy(tmp_path: Path) -> Envoy:
    """Return an Envoy that is told to end, without one that runs."""
    envoy: Any = object.__new__(Envoy)
    envoy._settings = FrontSettings(folder=tmp_path)
    envoy.process, envoy.admin = RunningProcess(), Admin(answers=True)
    os.mkfifo(tmp_path / "end")
    found: Envoy = envoy
    return found


def test_envoy_is_told_to_end_although_the_application_does_not_listen(envoy: Envoy) -> None:
    """End while the application starts: nobody has opened the pipe yet."""
    envoy.begin_end()
    assert vars(envoy)["admin"].drains == 1


def test_the_application_is_told_to_end_although_envoy_does_not_answer(
    envoy: Envoy, tmp_path: Path
) -> None:
    vars(envoy)["admin"] = Admin(answers=False)
    pipe = os.open(tmp_path / "end", os.O_RDONLY | os.O_NONBLOCK)
    try:
        envoy.begin_end()
        poll = select.poll()
        poll.register(pipe, 0)
        assert poll.poll(0) == [(pipe, select.POLLHUP)], "it was opened to write, and closed"
    finally:
        os.close(pipe)
