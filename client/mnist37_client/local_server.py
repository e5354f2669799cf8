"""A server of one's own, as a process on this machine: for a demonstration, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from mnist37_client.errors import Unavailable

LISTENING = "listening on "
UNWANTED_VARIABLES = {
    f"MNIST37_{option}"
    for option in ("TLS_CERT", "TLS_KEY", "CLIENT_CA", "TOKENS", "METRICS_ADDRESS")
}


class LocalServer:
    """Starts `mnist37 serve` on a free port; it is ready when the object is made.

    A class derived from it may have another `command`.

    Args:
        options: further options of `mnist37 serve`. Without --state the model is kept in memory.

    Raises:
        Unavailable: it did not start; says what it printed.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "mnist37_server")

    def __init__(self, *options: str) -> None:
        self._ended: tuple[int, str] | None = None
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        state = () if "--state" in options else ("--state", ":memory:")
        # A MNIST37_TOKENS of this shell's, say, is for another server, and nobody here has a token.
        bare = {name: value for name, value in os.environ.items() if name not in UNWANTED_VARIABLES}
        # Not a pipe: one that nobody reads would stop the server once it is full.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it has ended
        self.process = subprocess.Popen(
            [*self.command, *address, *state, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=bare,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(LISTENING):
            _, printed = self._end()
            raise Unavailable(f"the server did not start: {printed.strip()}")
        self.address = line.removeprefix(LISTENING).strip()

    def stop(self) -> tuple[int, str]:
        """Ends it in order; returns its exit status and what it logged."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._end()

    def kill(self) -> tuple[int, str]:
        """Ends it at once, in the midst of whatever it does."""
        self.process.kill()
        return self._end()

    def _end(self) -> tuple[int, str]:
        if not self._ended:
            self.process.communicate()
            with self._log:
                self._log.seek(0)
                self._ended = self.process.returncode, self._log.read()
        return self._ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
