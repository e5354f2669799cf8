"""The process of the server that owns the model, where the front starts it too."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from mnist37_server.command_line import main as serve
from mnist37_server.errors import CannotStart

from mnist37_front.envoy.process import die_with_parent

LISTENING = "listening on "


class OwnerProcess:
    """A server on a socket file, ready when the constructor returns.

    Args:
        command: starts it.
        socket: the file to listen on.

    Raises:
        CannotStart: the server did not start; its own lines say why.
    """

    def __init__(self, command: tuple[str, ...], socket: Path) -> None:
        # Its options come from the command, and not a second time from the environment.
        options = {f"MNIST37_{option.name}".upper() for option in serve.params}
        environment = {name: value for name, value in os.environ.items() if name not in options}
        self.process = subprocess.Popen(
            [*command, "--address", f"unix:{socket}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the launcher, which ends the server in order
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it calls the system alone
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(LISTENING):
            self.process.wait()
            raise CannotStart("the server did not start; the lines above say why")

    def stop(self) -> int:
        """End the server in order and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate()
        return self.process.returncode
