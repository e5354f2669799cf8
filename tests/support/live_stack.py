"""A stack that works while it is tested: a server, its page, a trainer, and a predictor.

If MNIST37_METRICS is set, it is the stack in containers, at the addresses in the variables.
Otherwise the same programs run as processes on this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mnist37_client import Client, Unavailable
from mnist37_client.local_server import LocalServer
from mnist37_client.processes.local_web import LocalWeb

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Stack:
    """The addresses of a stack's server."""

    address: str  # HOST:PORT
    metrics: str  # a URL
    web: str  # a URL, of the page and the HTTP API


@contextmanager
def running_example(name: str, *arguments: str) -> Iterator[None]:
    """Run one of the examples as a process, and kill it at the end."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, f"{name} ended by itself"
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Yield the stack in containers, or start one of processes and stop it at the end."""
    if "MNIST37_METRICS" in os.environ:
        variables = ("MNIST37_ADDRESS", "MNIST37_METRICS", "MNIST37_WEB")
        stack = Stack(*(os.environ[name] for name in variables))
        wait_for_server(stack.address)
        yield stack
        return
    with LocalServer("--device", "cpu", "--metrics-address", "127.0.0.1:0") as server:
        assert server.process.stdout is not None
        metrics = server.process.stdout.readline().split()[-1]
        with (
            LocalWeb(server.address) as web,
            running_example("trainer.py", server.address, "20", "0.5"),
            running_example("predictor.py", server.address, "1"),
        ):
            yield Stack(server.address, metrics, web.address)


def wait_for_server(address: str, seconds: float = 120) -> None:
    """Wait until a server answers at an address; a container may still be starting.

    Raises:
        Unavailable: no server has answered after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with Client(address) as client:
                client.get_model()
                return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
