"""A process of the page on this machine, for demonstrations and tests."""

from __future__ import annotations

import os

from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess


class LocalWeb(LocalProcess):
    """A process of `mnist37 web` on a free port, ready when the constructor returns.

    Its `address` is a URL.

    Args:
        server: the HOST:PORT of the server to call.
        options: further options of `mnist37 web`. No option comes from this environment.

    Raises:
        Unavailable: the page did not start; the message has its log.
    """

    command: tuple[str, ...] = python_process.command("mnist37_web")

    def __init__(self, server: str, *options: str) -> None:
        address = () if "--address" in options else ("--address", "127.0.0.1:0")
        command = (*self.command, "--server", server, *address, *options)
        unwanted = {name for name in os.environ if name.startswith("MNIST37_")}
        super().__init__("the page", command, unwanted)
