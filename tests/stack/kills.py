"""A server in its container, killed three times in the midst of a run that another one follows.

    python tests/stack/kills.py      needs a Docker engine; COMPOSE="docker compose" names another

Its process is killed by SIGKILL, and started again by the container's restart policy. The trainer's
container must live through that, and its run end with the parameters of one never interrupted.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

from mnist37_client import Client, Run, Unavailable
from support.live_stack import wait_for
from support.scraping import wait_until

KILLS = 3
EPOCHS = 5_000
PATIENCE = 300  # seconds
ROOT = Path(__file__).parents[2]
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker-compose")), "-p", "mnist37-kills"]
KILL = "kill -KILL $(cat /var/lib/mnist37/state/lock)"


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Containers:
    """A stack without tests, with a state and a port of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        told = {"MNIST37_PORT": port, "TRAINER_EPOCHS": EPOCHS, "TRAINER_PAUSE": 3600}
        self.environment = {**os.environ, **{name: str(value) for name, value in told.items()}}

    def compose(self, *arguments: str) -> str:
        """What docker-compose prints to a command."""
        done = subprocess.run(
            [*COMPOSE, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def restarts(self, service: str) -> int:
        """How often the restart policy has started its container again."""
        container = self.compose("ps", "-q", service)
        asked = ["docker", "inspect", "--format", "{{.RestartCount}}", container]
        return int(subprocess.check_output(asked, text=True))


def newest_run(client: Client) -> Run | None:
    """None while there is none, or no server."""
    try:
        return next(iter(client.runs()), None)
    except Unavailable:
        return None


def kill_in_the_midst(containers: Containers, client: Client) -> Run:
    """Three times; returns the run when it has come to its end all the same."""

    def reached(epoch: int) -> bool:
        run = newest_run(client)
        return run is not None and run.last is not None and run.last.epoch >= epoch

    for number in range(1, KILLS + 1):
        assert wait_until(lambda: reached(number * EPOCHS // (KILLS + 1)), PATIENCE)  # noqa: B023
        containers.compose("exec", "-T", "server", "sh", "-c", KILL)
        wait_for(containers.address)
        found = newest_run(client)
        assert found is not None
        assert found.last is not None
        assert found.last.epoch < EPOCHS, "it was killed too late"
        print(f"kill {number}: the server is back, the run at epoch {found.last.epoch:,}")
    assert wait_until(lambda: reached(EPOCHS), PATIENCE)
    run = newest_run(client)
    assert run is not None
    return run


def main() -> None:
    """Raises AssertionError where something is not as it must be."""
    containers = Containers()
    try:
        containers.compose("up", "-d", "--build", "server", "trainer")
        wait_for(containers.address)
        with Client(containers.address) as client:
            run = kill_in_the_midst(containers, client)
            assert run.state == "finished"
            ended = client.get_model(version=run.version).digest
            assert containers.restarts("server") == KILLS
            assert containers.restarts("trainer") == 0, "it has to live through all of it"
            client.initialize()
            uncut = client.train(EPOCHS, seed=run.seed).wait()
            assert client.get_model(version=uncut.version).digest == ended
        print(f"{KILLS} kills in {EPOCHS:,} epochs: those of one never interrupted, {ended}")
    finally:
        containers.compose("down", "--volumes")


if __name__ == "__main__":
    main()
