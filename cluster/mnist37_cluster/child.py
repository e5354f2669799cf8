"""A server as the child process of an actor, which it does not outlive."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from mnist37_client.processes import python_process

LISTENING = "listening on "
# Variables that are for the processes of Ray, or that would be further options of the server.
UNWANTED_PREFIXES = ("RAY_", "MNIST37_")


class ChildFailed(Exception):
    """A server that did not start; its lines in the log say why."""


class Child:
    """A server, which listens when the constructor returns; its log is this process's stderr.

    Args:
        command: starts it.

    Raises:
        ChildFailed: it did not start.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command, which ends the actors in order
            preexec_fn=python_process.die_with_parent(),  # noqa: PLW1509 - it calls the system alone
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(LISTENING):
            raise ChildFailed(f"it ended with the status {self.wait()}")
        self.address = line.removeprefix(LISTENING).strip()
        self.pid = self._process.pid

    def wait(self) -> int:
        """Show what the server prints until it ends; return its exit status."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                print(line, end="", file=sys.stderr, flush=True)
        return self._process.wait()

    def end(self) -> None:
        """Tell the server to end in order; `wait` returns when it has."""
        with suppress(ProcessLookupError):
            self._process.terminate()


def environment() -> dict[str, str]:
    """Return the environment of a server: its options come from its command alone."""
    variables = {
        name: value
        for name, value in python_process.environment().items()
        if not name.startswith(UNWANTED_PREFIXES)
    }
    # Ray hides the devices from an actor that asks for none; --device says what the owner takes.
    if not variables.get("CUDA_VISIBLE_DEVICES", "all"):
        del variables["CUDA_VISIBLE_DEVICES"]
    return variables


def end_process(text: str) -> None:
    """End this process at once, as a failure, so that Ray starts its actor again."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    os._exit(1)
