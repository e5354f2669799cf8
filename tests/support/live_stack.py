"""A stack that works while it is tested: a server, a trainer, and a service that predicts.

If MNIST37_METRICS and MNIST37_ADDRESS are set, it is the stack in containers at these addresses.
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

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Stack:
    """The addresses of a stack's server."""

    address: str  # HOST:PORT
    metrics: str  # a URL


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
        stack = Stack(os.environ["MNIST37_ADDRESS"], os.environ["MNIST37_METRICS"])
        wait_for_server(stack.address)
        yield stack
        return
    with LocalServer("--device", "cpu", "--metrics-address", "127.0.0.1:0") as server:
        assert server.process.stdout is not None
        metrics = server.process.stdout.readline().split()[-1]
        with (
            running_example("trainer.py", server.address, "20", "0.5"),
            running_example("predictor.py", server.address, "1"),
        ):
            yield Stack(server.address, metrics)


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
