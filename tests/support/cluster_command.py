"""A process of `mnist37 cluster`, and the commands that look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from support.scraping import wait_until

COMMAND = [sys.executable, "-m", "mnist37_client.cli", "cluster"]
READY = "ready;"


class ClusterCommand:
    """The command, ready when the constructor returns; `lines` is what it has said.

    Args:
        folder: for the state of the owner and of the user.
        options: further ones.
        has_owner: whether the command starts the owner too.
    """

    def __init__(self, folder: Path, *options: str, has_owner: bool = True) -> None:
        if has_owner:
            options = ("--address", "127.0.0.1:0", "--state", str(folder / "state"), *options)
        self.environment = {**os.environ, "XDG_STATE_HOME": str(folder / "home")}
        self.log = folder / "log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
            )
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if line.startswith(READY):
                break
        else:
            raise AssertionError(f"it did not start: {self.log.read_text()}")
        (self.owner,) = (
            line.split()[1] for line in self.lines if line.startswith("owner ") and "on" not in line
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `mnist37 cluster WORDS`."""
        return subprocess.run(
            [*COMMAND, *words], env=self.environment, capture_output=True, text=True, check=False
        )

    def status(self, *options: str) -> dict[str, Any]:
        """Return the state of the cluster."""
        process = self.call("status", "--json", *options)
        assert process.returncode == 0, process.stderr
        state: dict[str, Any] = json.loads(process.stdout)
        return state

    def end(self) -> int:
        """End the command as Ctrl-C does; return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until_ended(*pids: int) -> None:
    """Wait until none of the processes runs."""
    assert wait_until(lambda: not any(map(is_running, pids)), 240)
