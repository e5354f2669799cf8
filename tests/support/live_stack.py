"""A stack that is at work while it is tested: a server, a trainer, a service that asks.

It is the one in containers where MNIST37_METRICS says so, with MNIST37_ADDRESS; otherwise the same
programs as processes of this machine.
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
    """Where its server is."""

    address: str
    metrics: str  # a URL


@contextmanager
def program(name: str, *arguments: str) -> Iterator[None]:
    """One of the examples, until the end."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None, f"{name} ended by itself"
    finally:
        process.kill()
        process.wait()


@contextmanager
def running() -> Iterator[Stack]:
    """The one that is up, or one of processes."""
    if "MNIST37_METRICS" in os.environ:
        found = Stack(os.environ["MNIST37_ADDRESS"], os.environ["MNIST37_METRICS"])
        wait_for(found.address)
        yield found
        return
    with LocalServer("--device", "cpu", "--metrics-address", "127.0.0.1:0") as server:
        assert server.process.stdout is not None
        metrics = server.process.stdout.readline().split()[-1]
        with (
            program("trainer.py", server.address, "20", "0.5"),
            program("predictor.py", server.address, "1"),
        ):
            yield Stack(server.address, metrics)


def wait_for(address: str, seconds: float = 120) -> None:
    """Returns when a server answers there; one in a container may still be starting."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            with Client(address) as client:
                client.get_model()
                return
        except Unavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)
