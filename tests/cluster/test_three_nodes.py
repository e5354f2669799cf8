"""A cluster of three nodes that lose followers, a node and their patience, under steady reads."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mnist37_client import Client
from support.both_clients import IMAGES, AnyClient, BlockingClient
from support.cluster_command import ClusterCommand, is_running, wait_until_ended
from support.following import Server
from support.scraping import wait_until

REPLICAS = 3
STEP_SECONDS = 0.2
# On a quiet machine of two cores a follower serves 1.5 s after its start. Where it takes longer,
# so may all else.
FOLLOWER_SECONDS = 1.5
KILLED_SECONDS, REMOVED_SECONDS = 6.0, 20.0
PATIENCE_SECONDS = 120.0  # for what has no bound


class Caller:
    """Threads that step and read by one client each, and remember all that they were told."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._over = threading.Event()
        self.written: list[int] = []
        self.answers: list[list[tuple[int, bytes]]] = []
        self.failures: list[Exception] = []
        self.too_old = 0  # reads that did not see a write that was acknowledged before them

    @contextmanager
    def calling(self) -> Iterator[None]:
        blocking = Client(self._owner, replicas="owner", timeout=30)
        awaited = BlockingClient(self._owner, replicas="owner", timeout=30)
        threads = [
            threading.Thread(target=self._write, args=(blocking,)),
            threading.Thread(target=self._read, args=(blocking,)),
            threading.Thread(target=self._read, args=(awaited,)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
            blocking.close()
            awaited.stop()

    def _write(self, client: AnyClient) -> None:
        """Step now and then, and read at once: without a floor most followers are behind then."""
        answers: list[tuple[int, bytes]] = []
        self.answers.append(answers)
        while not self._over.wait(STEP_SECONDS):
            try:
                self.written.append(client.step().version)
                self._predict(client, answers)
            except Exception as error:  # noqa: BLE001 - the test names it
                self.failures.append(error)
                continue
            self.too_old += answers[-1][0] < self.written[-1]

    def _read(self, client: AnyClient) -> None:
        answers: list[tuple[int, bytes]] = []
        self.answers.append(answers)
        while not self._over.wait(0.005):
            try:
                self._predict(client, answers)
            except Exception as error:  # noqa: BLE001 - the test names it
                self.failures.append(error)

    def _predict(self, client: AnyClient, answers: list[tuple[int, bytes]]) -> None:
        prediction = client.predict(IMAGES[:2])
        answers.append((prediction.version, prediction.probabilities.tobytes()))

    def check(self, client: Client) -> None:
        """Assert that no call failed, time ran forwards, and each answer is the owner's."""
        assert not self.failures
        # One owner: a second one would have given a number twice.
        assert self.written == list(range(self.written[0], self.written[0] + len(self.written)))
        assert self.too_old == 0
        seen: dict[int, bytes] = {}
        for answers in self.answers:
            versions = [version for version, _ in answers]
            assert len(versions) > 100
            assert versions == sorted(versions)
            for version, content in answers:
                assert seen.setdefault(version, content) == content
        for version, content in seen.items():
            expected = client.predict(IMAGES[:2], version=version, fresh=True)
            assert expected.probabilities.tobytes() == content


class Watch:
    """The owner's list of followers, and when it is complete again."""

    def __init__(self, client: Client, slowness: float) -> None:
        self._client = client
        self._slowness = slowness

    def addresses(self) -> set[str]:
        return {each.address for each in self._client.followers() if each.start}

    def wait_for_new(self, gone: set[str], kept: set[str], seconds: float | None) -> float:
        """Wait until as many new followers are listed as are gone; return the seconds."""
        began = time.monotonic()
        limit = PATIENCE_SECONDS if seconds is None else seconds * self._slowness

        def are_back() -> bool:
            return len(self.addresses() - gone - kept) == len(gone)

        assert wait_until(are_back, limit), (self.addresses(), gone, kept, limit)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def slowness() -> float:
    """Return how many times slower this machine is now than a quiet one."""
    with Server("--device", "cpu") as owner:
        began = time.monotonic()
        with Server("--follow", owner.address) as follower:
            follower.wait_until_serving()
            return max(1.0, (time.monotonic() - began) / FOLLOWER_SECONDS)


def by_node(state: dict[str, Any], node: str) -> set[str]:
    return {each["address"] for each in state["replicas"] if each["node"] == node}


def owners(folder: Path) -> list[int]:
    """Return the processes of servers with the state in this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "mnist37_server" in words and str(folder / "state") in words:
            found.append(process.info["pid"])
    return found


def processes_of(node: Any) -> list[psutil.Process]:
    """Return the processes of a node of Ray, with the servers of its actors."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def test_followers_come_back_and_no_read_notices(
    nodes: Any, add_node: Callable[..., Any], tmp_path: Path, slowness: float
) -> None:
    ray = ("--ray", nodes.address)
    options = ("--replicas", str(REPLICAS), *ray)
    with ClusterCommand(tmp_path, *options) as command, Client(command.owner) as client:
        watch = Watch(client, slowness)
        caller = Caller(command.owner)
        state = command.status(*ray)
        assert {node["alive"] for node in state["nodes"]} == {True}
        # SPREAD: one on each node.
        assert len({each["node"] for each in state["replicas"]}) == len(state["nodes"]) == REPLICAS
        assert watch.addresses() == {each["address"] for each in state["replicas"]}
        owner_pid, owner_node = state["owner"]["pid"], state["owner"]["node"]
        took = {}
        with caller.calling():
            # A follower is killed: back, and clients find it at its new address.
            killed = state["replicas"][0]
            kept = watch.addresses() - {killed["address"]}
            os.kill(killed["pid"], signal.SIGKILL)
            took["killed"] = watch.wait_for_new({killed["address"]}, kept, KILLED_SECONDS)

            # Its actor is killed: the follower dies with it.
            state = command.status(*ray)
            orphan = state["replicas"][1]
            kept = watch.addresses() - {orphan["address"]}
            psutil.Process(orphan["pid"]).parent().kill()
            wait_until_ended(orphan["pid"])
            watch.wait_for_new({orphan["address"]}, kept, None)

            # A node is removed: its followers are back on the others.
            state = command.status(*ray)
            removable = [each for each in nodes.worker_nodes if each.node_id != owner_node]
            removed = next(
                (each for each in removable if by_node(state, each.node_id)), removable[0]
            )
            gone = by_node(state, removed.node_id)
            assert gone
            kept = watch.addresses() - gone
            nodes.remove_node(removed, allow_graceful=False)
            took["removed"] = watch.wait_for_new(gone, kept, REMOVED_SECONDS)
            assert owners(tmp_path) == [owner_pid]

            # A node is paused for so long that Ray gives it up, and wakes.
            paused = add_node(nodes)
            restarted = command.call("restart", *ray)
            assert restarted.returncode == 0, restarted.stderr
            state = command.status(*ray)
            if not by_node(state, paused.node_id):
                (paused,) = (
                    each
                    for each in nodes.worker_nodes
                    if each.node_id != owner_node and by_node(state, each.node_id)
                )
            gone = by_node(state, paused.node_id)
            kept = watch.addresses() - gone
            sleepers = processes_of(paused)
            for process in sleepers:
                process.suspend()
            try:
                watch.wait_for_new(gone, kept, None)
            finally:
                for process in sleepers:
                    process.resume()
            # The old followers and the new ones are there, and answer; then Ray ends the old ones:
            # the raylet sees that it was given up, and its actors that it has ended.
            paused.all_processes["raylet"][0].process.wait(60)
            wait_until_ended(*(process.pid for process in sleepers))
            assert owners(tmp_path) == [owner_pid]
            time.sleep(2 * STEP_SECONDS)
        caller.check(client)
        state = command.status(*ray)
        assert state["owner"]["pid"] == owner_pid
        assert {each["address"] for each in state["replicas"]} == watch.addresses()
        servers = [owner_pid, *(each["pid"] for each in state["replicas"])]
        assert command.end() == 0
        assert not any(map(is_running, servers))
        print(f"slowness {slowness:.1f}, seconds until back: {took}")
        assert not owners(tmp_path)
