"""A process of `mnist37 web` on this machine."""

from __future__ import annotations

import subprocess
import tempfile
from types import TracebackType
from typing import Self

from mnist37_client import python_process

LISTENING = "listening on "


class LocalWeb:
    """A process of `mnist37 web`, ready when the constructor returns.

    Args:
        server: the address of the model server.
        options: further options; without --address, a free port of loopback is taken.

    Attributes:
        url: of the page, without a slash at its end.

    Raises:
        RuntimeError: it did not start; the message has its log.
    """

    def __init__(self, server: str, *options: str) -> None:
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        command = [*python_process.command("mnist37_web"), "--server", server, *address, *options]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the process has ended
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=python_process.environment(),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(LISTENING):
            raise RuntimeError(f"mnist37 web did not start: {self._wait()}")
        self.url = line.removeprefix(LISTENING).strip()

    @property
    def address(self) -> str:
        """Return where it listens, as HOST:PORT."""
        return self.url.partition("://")[2]

    def stop(self) -> str:
        """End it and return its log."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._wait()

    def kill(self) -> str:
        """Kill it at once and return its log."""
        self.process.kill()
        return self._wait()

    def _wait(self) -> str:
        self.process.communicate()
        if self._log.closed:
            return ""
        with self._log:
            self._log.seek(0)
            return self._log.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
