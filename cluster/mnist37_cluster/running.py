"""The commands of a cluster: they run it, show its state, and restart its followers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mnist37_server.domain.address import join
from mnist37_server.rpc import process
from mnist37_server.rpc.listening import find_port

from mnist37_cluster import placement, status
from mnist37_cluster.connection import ray_connection
from mnist37_cluster.connection.ray_connection import LOOPBACK
from mnist37_cluster.settings import ClusterSettings

PAUSE_SECONDS = 0.1


def run(settings: ClusterSettings) -> int:
    """Run a cluster until a signal ends it; return the exit status.

    Raises:
        CannotStart: Ray or a server cannot start with one of the settings.
    """
    signals = process.prepare()
    # Of a Ray that is yet to start, the address of its node is known: wrong settings fail before.
    owner = find_owner(settings, LOOPBACK) if settings.ray is None else None
    signals.begin_serving()
    with connected(settings):
        owner = owner or find_owner(settings, ray_connection.node()[1])
        actors: dict[str, Any] = {}
        owners: dict[str, Any] = {}
        try:
            if settings.owner is None:
                owners[placement.OWNER] = placement.place_owner(settings, owner)
                wait_for(owners, settings, signals)
            actors.update(placement.place_replicas(settings, owner))
            wait_for(actors, settings, signals)
            if not signals.has_come:
                say(f"owner {owner}")
                say("ready; Ctrl-C ends it, and `mnist37 cluster status` shows it")
            while not signals.has_come:
                time.sleep(PAUSE_SECONDS)
        finally:
            placement.end_all(actors, signals.hurry.is_set)
            placement.end_all(owners, signals.hurry.is_set)
    return 0


def find_owner(settings: ClusterSettings, host: str) -> str:
    """Return the address of the owner, which runs already or will be started on this node.

    The port of one that is started stays when it is started again: followers know it.

    Raises:
        CannotStart: a setting is not valid, or the port is in use.
    """
    address = settings.owner_address(host)
    port = address.port if settings.owner else find_port("--address", address)[1]
    owner = str(address) if address.path else join(address.host, port)
    settings.check(host, owner)
    return owner


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Be connected to the Ray of the settings, or to one that is started, and say what it is."""
    if settings.ray is not None:
        if os.environ.get(ray_connection.AUTH_MODE) != "token":
            print(
                "mnist37 cluster: whoever reaches this Ray runs commands on its nodes:"
                f" {ray_connection.AUTH_MODE} is not token",
                file=sys.stderr,
            )
        with ray_connection.attached(settings.ray, show_logs=True):
            yield
        return
    with ray_connection.started(settings.replicas, settings.expose_ray) as found:
        say(f"ray {ray_connection.address()}, with a token of this command")
        for listener in found:
            say(f"ray listens on {listener}")
        yield


def wait_for(
    actors: dict[str, Any], settings: ClusterSettings, signals: process.StopSignals
) -> None:
    """Wait until the servers of actors serve, and say where."""
    for name, actor in actors.items():
        found = placement.wait_until_serving(actor, name, settings, lambda: signals.has_come)
        if found is not None:
            say(f"{name} {found.address} on the node {found.node[:8]}")


def show_status(ray: str | None, show: Callable[[dict[str, Any], list[str]], None]) -> int:
    """Show the state of the running cluster; return the exit status.

    Raises:
        CannotStart: no cluster runs there.
    """
    with ray_connection.attached(ray, show_logs=False):
        state = status.gather(*status.find_settings())
    show(state, status.lines(state))
    return 0


def restart(ray: str | None, show: Callable[[str], None]) -> int:
    """Restart the replicas of the running cluster; return the exit status.

    Raises:
        CannotStart: no cluster runs there, or a replica does not come back.
    """
    signals = process.prepare()
    signals.begin_serving()
    with ray_connection.attached(ray, show_logs=False):
        settings, owner = status.find_settings()
        restarted = 0
        for found in placement.restart_replicas(settings, owner, lambda: signals.has_come):
            restarted += 1
            show(f"{found.name} {found.address} on the node {found.node[:8]}")
    return 0 if restarted == settings.replicas else 1


def say(line: str) -> None:
    """Print a line, if stdout takes it: the cluster does not depend on who reads."""
    with suppress(OSError):
        print(line, flush=True)
