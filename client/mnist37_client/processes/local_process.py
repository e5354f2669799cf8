"""A process on this machine that says where it listens: a server, or the page."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Container
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from mnist37_client.errors import Unavailable
from mnist37_client.processes import python_process

LISTENING = "listening on "


class LocalProcess:
    """A process, ready when the constructor returns.

    Attributes:
        ends_with_thread: whether the system kills it when the thread that has started it ends, on
            Linux: for a program that starts it in its main thread.

    Args:
        name: for the error.
        command: starts it.
        unwanted: the variables of this environment that are for other processes.

    Raises:
        Unavailable: the process did not start; the message has its log.
    """

    ends_with_thread = False

    def __init__(self, name: str, command: tuple[str, ...], unwanted: Container[str]) -> None:
        self._result: tuple[int, str] | None = None  # exit status and log
        environment = {
            variable: value
            for variable, value in python_process.environment().items()
            if variable not in unwanted
        }
        prepare = python_process.die_with_parent() if self.ends_with_thread else None
        try:
            with ExitStack() as stack:
                # Not a pipe: without a reader a full pipe would block the process.
                self._log = stack.enter_context(tempfile.TemporaryFile("w+"))
                self.process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    text=True,
                    env=environment,
                    preexec_fn=prepare,  # noqa: PLW1509 - it calls the system alone
                )
                stack.pop_all()  # the log is closed when the process has ended
        except OSError as error:  # of the folder for the log, or of the process
            raise Unavailable(f"{name} did not start: {error.strerror}") from error
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
        except BaseException:  # Ctrl-C: nobody else would stop the process
            self.kill()
            raise
        if not line.startswith(LISTENING):
            _, log = self._wait()
            raise Unavailable(f"{name} did not start: {log.strip()}")
        self.address = line.removeprefix(LISTENING).strip()

    def stop(self) -> tuple[int, str]:
        """End the process in order and return its exit status and its log."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._wait()

    def kill(self) -> tuple[int, str]:
        """Kill the process at once and return its exit status and its log."""
        self.process.kill()
        return self._wait()

    def _wait(self) -> tuple[int, str]:
        if not self._result:
            self.process.communicate()
            with self._log:
                self._log.seek(0)
                self._result = self.process.returncode, self._log.read()
        return self._result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
