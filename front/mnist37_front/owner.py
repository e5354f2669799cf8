"""The server that owns the model, where the front starts it too: its process, and its tokens."""

from __future__ import annotations

import hashlib
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mnist37_client.processes import python_process
from mnist37_server.access.tokens import decode, parse
from mnist37_server.command_line import main as serve
from mnist37_server.errors import CannotStart

LISTENING, METRICS = "listening on ", "metrics on "
PAUSE_SECONDS = 0.02


class OwnerTokens:
    """The owner's file of tokens: the operator's, and one more for the front.

    Args:
        source: the operator's file.
        folder: of the front, where the owner's file and that of the front's token are.

    Raises:
        CannotStart: the operator's file cannot be read, or is invalid.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._content = b""
        self.file = folder / "tokens"
        self.token_file = folder / "token"
        secret = secrets.token_urlsafe(32)
        self._line = f"\nfollow {hashlib.sha256(secret.encode()).hexdigest()}\n"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secret)
        try:
            self._write(source.read_bytes())
        except OSError as error:
            raise CannotStart(f"--tokens: cannot read {source}: {error.strerror}") from error

    def refresh(self) -> None:
        """Write the owner's file again if the operator's has changed and is valid.

        If not, the application in Envoy says so, by the name of the operator's file, and the tokens
        from before hold in both processes.
        """
        with suppress(OSError):  # it is being replaced, or gone: what was read last holds
            content = self._source.read_bytes()
            if content != self._content:
                with suppress(CannotStart):
                    self._write(content)
                self._content = content

    def _write(self, content: bytes) -> None:
        parse(self._source, content)
        new = self.file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(decode(self._source, content) + self._line, encoding="utf-8")
        new.replace(self.file)
        self._content = content


class OwnerRefused(Exception):
    """A server that did not start; its own line has said why.

    Args:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the server has ended with status {status}")
        self.status = status


class OwnerProcess:
    """A server on a socket file, ready when `wait_until_ready` returns.

    Args:
        command: starts it.
        socket: the file to listen on.
        tokens: of the server; None if its callers need none.
    """

    def __init__(self, command: tuple[str, ...], socket: Path, tokens: OwnerTokens | None) -> None:
        self.tokens = tokens
        self.announced: list[str] = []  # on stdout, after where it listens
        options_tokens = () if tokens is None else ("--tokens", str(tokens.file))
        # Its options come from the command, and not a second time from the environment.
        options = {f"MNIST37_{option.name}".upper() for option in serve.params}
        environment = {name: value for name, value in os.environ.items() if name not in options}
        self.process = subprocess.Popen(
            [*command, "--address", f"unix:{socket}", *options_tokens],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the launcher, which ends the server in order
            preexec_fn=python_process.die_with_parent(),  # noqa: PLW1509 - it calls the system alone
        )

    def wait_until_ready(self, hurry: Callable[[], bool]) -> None:
        """Wait until the server listens.

        Args:
            hurry: returns whether the wait is over because of a signal.

        Raises:
            OwnerRefused: the server did not start, and has said why.
            CannotStart: the server ended without a word.
        """
        lines = self.process.stdout
        assert lines is not None
        while not select.select([lines], [], [], PAUSE_SECONDS)[0]:
            if hurry():
                return
        if not lines.readline().startswith(LISTENING):
            status = self.stop(lambda: True)
            if status > 0:
                raise OwnerRefused(status)
            raise CannotStart(f"the server has ended with status {status} at its start")
        # It prints the others with the first one: where its metrics are, if they are anywhere, and
        # its version.
        self.announced = [lines.readline().strip()]
        if self.announced[0].startswith(METRICS):
            self.announced.append(lines.readline().strip())

    def stop(self, hurry: Callable[[], bool]) -> int:
        """End the server in order and return its exit status.

        Args:
            hurry: returns whether its calls get no more time.
        """
        signals_sent = 0
        while self.process.poll() is None:
            if signals_sent < 1 + hurry():  # a server takes a second signal for that
                self.process.send_signal(signal.SIGTERM)
                signals_sent += 1
            time.sleep(PAUSE_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait()
