"""A server process on this machine, for demonstrations and tests."""

from __future__ import annotations

import subprocess
import tempfile
from types import TracebackType
from typing import Self

from mnist37_client import python_process
from mnist37_client.errors import Unavailable

LISTENING = "listening on "
UNWANTED_VARIABLES = {
    f"MNIST37_{option}"
    for option in (
        *("TLS_CERT", "TLS_KEY", "CLIENT_CA", "TOKENS", "METRICS_ADDRESS"),
        *("FOLLOW", "FOLLOW_TLS_CA", "FOLLOW_TLS_CERT", "FOLLOW_TLS_KEY", "FOLLOW_TOKEN_FILE"),
        *("ADVERTISE", "MAX_AGE"),
    )
}


class LocalServer:
    """A process of `mnist37 serve` on a free port, ready when the constructor returns.

    A subclass may set another `command`.

    Args:
        options: further options of `mnist37 serve`. Without --state, a server that owns its model
            keeps it in memory.

    Raises:
        Unavailable: the server did not start; the message has the server's log.
    """

    command: tuple[str, ...] = python_process.command("mnist37_server")

    def __init__(self, *options: str) -> None:
        self._result: tuple[int, str] | None = None  # exit status and log
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        needs_state = {"--state", "--follow"}.isdisjoint(options)
        state = ("--state", ":memory:") if needs_state else ()
        # MNIST37_TOKENS in this environment, for example, is for another server: the callers of
        # this one have no token.
        environment = {
            name: value
            for name, value in python_process.environment().items()
            if name not in UNWANTED_VARIABLES
        }
        # Not a pipe: without a reader a full pipe would block the server.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the server has ended
        self.process = subprocess.Popen(
            [*self.command, *address, *state, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
        except BaseException:  # Ctrl-C: nobody else would stop the server
            self.kill()
            raise
        if not line.startswith(LISTENING):
            _, log = self._wait()
            raise Unavailable(f"the server did not start: {log.strip()}")
        self.address = line.removeprefix(LISTENING).strip()

    def stop(self) -> tuple[int, str]:
        """Shut the server down and return its exit status and its log."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._wait()

    def kill(self) -> tuple[int, str]:
        """Kill the server at once and return its exit status and its log."""
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
