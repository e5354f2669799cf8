"""A disk that fails or hangs on request, by a library that is preloaded into a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mnist37_client.local_server import LocalServer

SOURCE = Path(__file__).with_suffix(".c")


class FaultyDisk:
    """The disk of one process; disk_faults.c lists the orders that it takes.

    Args:
        folder: an empty folder for the library and the orders.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("needs Linux and a C compiler")
        self._orders = folder / "orders"
        self._orders.mkdir()
        library = folder / "disk_faults.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.variables = {"LD_PRELOAD": str(library), "DISK_FAULTS": str(self._orders)}

    def order(self, name: str) -> None:
        """Have the disk obey an order from now on."""
        (self._orders / name).touch()

    @contextmanager
    def obeying(self, name: str) -> Iterator[None]:
        """Have the disk obey an order for the duration of the block."""
        self.order(name)
        try:
            yield
        finally:
            (self._orders / name).unlink()

    def serve(self, *options: str) -> LocalServer:
        """Start a server whose state is on this disk."""

        class Server(LocalServer):
            command = self.server_command

        return Server("--device", "cpu", *options)

    @property
    def server_command(self) -> tuple[str, ...]:
        """Return the `command` of a LocalServer whose state is on this disk."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        return ("env", *variables, *LocalServer.command)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command whose files are on this disk, to its end."""
        return subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, check=False
        )
