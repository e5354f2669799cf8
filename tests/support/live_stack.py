"""A stack that works while it is tested: a server, followers, a front, a trainer, and a predictor.

If MNIST37_METRICS is set, it is the stack in containers, at the addresses in the variables.
Otherwise the same programs run as processes on this machine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mnist37_client import Client, Unavailable
from mnist37_client.local_server import UNWANTED_VARIABLES, LocalServer
from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLLOWERS = 2  # on this machine


@dataclass(frozen=True)
class Stack:
    """The addresses of a stack."""

    address: str  # HOST:PORT of the server, which owns the model
    replicas: str  # its followers, as the client takes them
    front: str | None  # HOST:PORT; None: a front cannot run here
    metrics: str  # the URL of the server's
    follower_metrics: tuple[str, ...]  # the URL of each follower's


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
        yield find_containers()
    else:
        with ExitStack() as programs:
            yield start_processes(programs)


def find_containers() -> Stack:
    """Return the stack that the variables name, when its server, followers and front answer."""
    address, replicas, front, metrics = (
        os.environ[f"MNIST37_{name}"] for name in ("ADDRESS", "REPLICAS", "FRONT", "METRICS")
    )
    for each in (Client(address), Client(None, replicas=replicas), Client(front)):
        wait_for_server(each)
    name, _, _ = replicas.removeprefix("dns:///").rpartition(":")
    hosts = {str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)}
    urls = tuple(f"http://{host}:9100/metrics" for host in sorted(hosts))
    return Stack(address, replicas, front, metrics, urls)


def start_processes(programs: ExitStack) -> Stack:
    """Start the programs of a stack, which end with the block of the exit stack."""
    from support.fronted import missing

    def start_server(*options: str) -> tuple[str, str]:
        server = LocalServer("--device", "cpu", "--metrics-address", "127.0.0.1:0", *options)
        programs.enter_context(server)
        assert server.process.stdout is not None
        return server.address, server.process.stdout.readline().split()[-1]

    address, metrics = start_server()
    followers = [start_server("--follow", address) for _ in range(FOLLOWERS)]
    replicas = ",".join(follower for follower, _ in followers)
    front = None
    if not missing():
        options = ("--owner", address, "--address", "127.0.0.1:0")
        command = (*python_process.command("mnist37_front"), *options)
        process = LocalProcess("the front", command, UNWANTED_VARIABLES)
        front = programs.enter_context(process).address
    programs.enter_context(running_example("trainer.py", address, "20", "0.5"))
    programs.enter_context(running_example("predictor.py", address, "1", replicas))
    urls = tuple(url for _, url in followers)
    return Stack(address, replicas, front, metrics, urls)


def wait_for_server(client: Client, seconds: float = 300) -> None:
    """Wait until a server answers a client, and close it; a container may still be starting.

    Raises:
        Unavailable: no server has answered after so many seconds.
    """
    deadline = time.monotonic() + seconds
    with client:
        while True:
            try:
                client.get_model()
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
