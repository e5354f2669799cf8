"""Containers that are killed during a run of the trainer's container, while others read.

    python tests/stack/kills.py

It needs a Docker engine; COMPOSE="docker compose" names another command. The processes are killed
by SIGKILL, and the containers' restart policy starts them again: in each of three rounds a
follower and the server, then the front too, then all followers at once. One reader reads over the
followers, another one through the front, each by one client, without pause. No read may fail, no
version may go back, and every answer must have the bits of its version. The trainer's container
must not end, and its run must end with the parameters of a run that was never interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist37_client import Client, NotFound, Run, Unavailable, validation_images
from support.live_stack import wait_for_server
from support.scraping import wait_until

SERVICES = ("server", "follower", "front", "trainer")
FOLLOWERS = 3
# The containers that are killed in each round, by service and number, before the server.
ROUNDS: list[list[tuple[str, int]]] = [
    [("follower", 1)],
    [("follower", 2), ("front", 1)],
    [("follower", number) for number in range(1, FOLLOWERS + 1)],
]
KILL = "kill -KILL -1"
EPOCHS = 30_000
EPOCHS_BETWEEN = 3_000  # two rounds; the rest is for a machine on which a kill takes long
READS_MIN = 50  # in each round
TIMEOUT_SECONDS = 600
ROOT = Path(__file__).parents[2]
READER = (Path(__file__).parent / "reader.py").read_text()
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker-compose")), "-p", "mnist37-kills"]


def free_port() -> int:
    """Return a TCP port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Containers:
    """A stack of server, followers, front and trainer, with its own state and port."""

    def __init__(self) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"  # of the front
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

    def kill(self, containers: list[tuple[str, int]]) -> None:
        """Kill all processes of containers at once, but those that start the others."""
        ids = [self.ids[service][number - 1] for service, number in containers]
        # Not by docker-compose, which takes seconds, in which the run goes on.
        kills = [subprocess.Popen(["docker", "exec", each, "sh", "-c", KILL]) for each in ids]
        for each in kills:  # the shell may end with its container; `restarts` has the kills
            each.wait()

    def restarts(self, service: str) -> int:
        """Return how often the restart policy has restarted a service's containers."""
        command = ["docker", "inspect", "--format", "{{.RestartCount}}", *self.ids[service]]
        return sum(map(int, subprocess.check_output(command, text=True).split()))

    @cached_property
    def ids(self) -> dict[str, list[str]]:
        """Return the containers of each service; a restart does not change them."""
        return {service: self.compose("ps", "-q", service).split() for service in SERVICES}

    @contextmanager
    def reader(self, *addresses: str) -> Iterator[Reader]:
        """Run a reader in a container of its own, until the end of the block."""
        options = ("--rm", "-T", "--no-deps", "--entrypoint", "python")
        reader = Reader(
            [*COMPOSE, "run", *options, "predictor", "-c", READER, *addresses], self.environment
        )
        try:
            yield reader
        finally:
            reader.stop()


class Reader:
    """A reader in a container, and its latest report.

    Args:
        command: starts it.
        environment: of the command.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.report: dict[str, Any] = {"reads": 0}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    @property
    def reads(self) -> int:
        """Return how many reads were answered until the latest report."""
        return int(self.report["reads"])

    def stop(self) -> None:
        """Let the reader end, and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT_SECONDS)
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.report = json.loads(line)


def newest_run(client: Client) -> Run | None:
    """Return the newest run, or None if there is no run or no server."""
    try:
        return next(iter(client.runs()), None)
    except Unavailable:
        return None


def kill_during_run(containers: Containers, client: Client, readers: list[Reader]) -> Run:
    """Kill containers three times during the trainer's run; return the run after its last epoch."""

    def has_reached(epoch: int) -> bool:
        run = newest_run(client)
        return run is not None and run.last is not None and run.last.epoch >= epoch

    for number, killed in enumerate(ROUNDS, 1):
        epoch = number * EPOCHS_BETWEEN
        assert wait_until(lambda: has_reached(epoch), TIMEOUT_SECONDS)  # noqa: B023
        before = [reader.reads for reader in readers]
        containers.kill([*killed, ("server", 1)])
        wait_for_server(Client(containers.address))
        run = newest_run(client)
        assert run is not None
        assert run.last is not None
        assert run.last.epoch < EPOCHS, "the kill came after the run's end"
        for reader, count in zip(readers, before, strict=True):
            enough = count + READS_MIN
            assert wait_until(lambda: reader.reads >= enough, TIMEOUT_SECONDS)  # noqa: B023
        print(f"kill {number}: the server is back, the run at epoch {run.last.epoch:,}", flush=True)
    assert wait_until(lambda: has_reached(EPOCHS), TIMEOUT_SECONDS)
    run = newest_run(client)
    assert run is not None
    return run


def check_reader(name: str, reader: Reader, client: Client) -> None:
    """Raise AssertionError unless a reader read what was written, without a failure."""
    report = reader.report
    assert report["failed"] == [], report["failed"]
    assert report["backwards"] == [], report["backwards"]
    image = validation_images()[0][0]
    checked = 0
    for version, probability in report["answers"].items():
        try:
            expected = client.predict(image, version=int(version))
        except NotFound:  # it is no longer retained
            continue
        assert float(expected.probabilities[0]) == probability, f"{name}, version {version}"
        checked += 1
    assert checked, "no version of an answer is retained"
    print(
        f"{name}: {report['reads']:,} reads, none failed, no version went back, {checked} answers"
        f" have their version's bits; slowest {report['slowest']:.1f} s"
    )


def main() -> None:
    """Run the check; raise AssertionError if it fails."""
    containers = Containers()
    try:
        containers.compose("up", "-d", "--build", "--scale", f"follower={FOLLOWERS}", *SERVICES)
        wait_for_server(Client(containers.address))
        with Client(containers.address) as client:
            assert wait_until(lambda: len(client.followers()) == FOLLOWERS + 1, TIMEOUT_SECONDS)
            with ExitStack() as programs:
                readers = {
                    "over the followers": ("server:50051", "dns:///follower:50051"),
                    "through the front": ("front:50051",),
                }
                running = {
                    name: programs.enter_context(containers.reader(*addresses))
                    for name, addresses in readers.items()
                }
                run = kill_during_run(containers, client, list(running.values()))
            assert run.state == "finished"
            digest = client.get_model(version=run.version).digest
            for name, reader in running.items():
                check_reader(name, reader, client)
            kills = [("server", 1) for _ in ROUNDS] + [each for killed in ROUNDS for each in killed]
            for service in SERVICES:
                count = sum(name == service for name, _ in kills)
                log = containers.compose("logs", "--tail=50", service)
                assert containers.restarts(service) == count, log
            client.initialize()
            uninterrupted = client.train(EPOCHS, seed=run.seed).wait()
            assert client.get_model(version=uninterrupted.version).digest == digest
        print(f"{len(kills)} kills in {EPOCHS:,} epochs: digest as without interruption, {digest}")
    finally:
        containers.compose("down", "--volumes")


if __name__ == "__main__":
    main()
