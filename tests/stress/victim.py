"""A server that can be killed at a chosen moment, and restarts in a fraction of a second."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

from mnist37_client import Client, Unavailable
from mnist37_server import app
from mnist37_server.config import Config
from mnist37_server.storage.store import Store

# Servers are forked from one process that has imported their modules. A server imports this module,
# so it must not import torch, which would take longer than everything else.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mnist37_server.app"])

MOMENTS = ("before", "inside", "after")


class Failpoint(sqlite3.Connection):
    """A connection that kills its process at its nth commit, before, inside or after it."""

    moment = ""
    commits_left = 0

    def execute(self, sql: str, *arguments: object) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE":
            Failpoint.commits_left -= 1
            self._die_at("before")
        if sql == "COMMIT":
            self._die_at("inside")
        cursor = super().execute(sql, *arguments)  # type: ignore[arg-type]
        if sql == "COMMIT":
            self._die_at("after")
        return cursor

    def _die_at(self, moment: str) -> None:
        if Failpoint.commits_left == 0 and Failpoint.moment == moment:
            os.kill(os.getpid(), signal.SIGKILL)


def serve(config: Config, failpoint: tuple[str, int] | None) -> None:
    """Run a server until it is stopped or, with a failpoint, until its nth commit."""
    connection_class = sqlite3.Connection
    if failpoint is not None:
        Failpoint.moment, Failpoint.commits_left = failpoint
        connection_class = Failpoint
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    app.run(config, partial(Store, connection_class=connection_class))


class Victim:
    """A server on one port and one folder that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]  # a free port
        self.config = Config(address=f"127.0.0.1:{port}", device="cpu", state=folder)
        self.process = self._start(None)

    def _start(self, failpoint: tuple[str, int] | None) -> multiprocessing.process.BaseProcess:
        process = FORKSERVER.Process(target=serve, args=(self.config, failpoint), daemon=True)
        process.start()
        return process

    def start(self, failpoint: tuple[str, int] | None = None) -> None:
        self.process = self._start(failpoint)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def client(self) -> Client:
        """Return a client after its first answer: from then on it retries through restarts."""
        client = Client(self.config.address)
        for _ in range(400):
            try:
                client.get_model()
            except Unavailable:
                time.sleep(0.05)
            else:
                return client
        raise AssertionError("the server did not start")
