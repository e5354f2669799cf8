"""A server in a container that is killed three times during a run of the trainer's container.

    python tests/stack/kills.py

It needs a Docker engine; COMPOSE="docker compose" names another command. The server's process is
killed by SIGKILL, and the container's restart policy starts it again. The trainer's container must
not end, and its run must end with the parameters of a run that was never interrupted.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

from mnist37_client import Client, Run, Unavailable
from support.live_stack import wait_for_server
from support.scraping import wait_until

KILLS = 3
EPOCHS = 5_000
TIMEOUT_SECONDS = 300
ROOT = Path(__file__).parents[2]
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker-compose")), "-p", "mnist37-kills"]
KILL = "kill -KILL $(cat /var/lib/mnist37/state/lock)"


def free_port() -> int:
    """Return a TCP port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Containers:
    """A stack of the server and the trainer, with its own state and port."""

    def __init__(self) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        settings = {"MNIST37_PORT": port, "TRAINER_EPOCHS": EPOCHS, "TRAINER_PAUSE": 3600}
        self.environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}

    def compose(self, *arguments: str) -> str:
        """Run a docker-compose command and return its output."""
        process = subprocess.run(
            [*COMPOSE, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return process.stdout.strip()

    def restarts(self, service: str) -> int:
        """Return how often the restart policy has restarted a service's container."""
        container = self.compose("ps", "-q", service)
        command = ["docker", "inspect", "--format", "{{.RestartCount}}", container]
        return int(subprocess.check_output(command, text=True))


def newest_run(client: Client) -> Run | None:
    """Return the newest run, or None if there is no run or no server."""
    try:
        return next(iter(client.runs()), None)
    except Unavailable:
        return None


def kill_during_run(containers: Containers, client: Client) -> Run:
    """Kill the server three times during the trainer's run; return the run after its last epoch."""

    def has_reached(epoch: int) -> bool:
        run = newest_run(client)
        return run is not None and run.last is not None and run.last.epoch >= epoch

    for number in range(1, KILLS + 1):
        epoch = number * EPOCHS // (KILLS + 1)
        assert wait_until(lambda: has_reached(epoch), TIMEOUT_SECONDS)  # noqa: B023
        containers.compose("exec", "-T", "server", "sh", "-c", KILL)
        wait_for_server(containers.address)
        run = newest_run(client)
        assert run is not None
        assert run.last is not None
        assert run.last.epoch < EPOCHS, "the kill came after the run's end"
        print(f"kill {number}: the server is back, the run at epoch {run.last.epoch:,}")
    assert wait_until(lambda: has_reached(EPOCHS), TIMEOUT_SECONDS)
    run = newest_run(client)
    assert run is not None
    return run


def main() -> None:
    """Run the check; raise AssertionError if it fails."""
    containers = Containers()
    try:
        containers.compose("up", "-d", "--build", "server", "trainer")
        wait_for_server(containers.address)
        with Client(containers.address) as client:
            run = kill_during_run(containers, client)
            assert run.state == "finished"
            digest = client.get_model(version=run.version).digest
            assert containers.restarts("server") == KILLS
            assert containers.restarts("trainer") == 0, "the trainer must not end"
            client.initialize()
            uninterrupted = client.train(EPOCHS, seed=run.seed).wait()
            assert client.get_model(version=uninterrupted.version).digest == digest
        print(f"{KILLS} kills in {EPOCHS:,} epochs: digest as without interruption, {digest}")
    finally:
        containers.compose("down", "--volumes")


if __name__ == "__main__":
    main()
