"""The actors of a cluster: their start, their restart one after the other, and their end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mnist37_client import Client, Mnist37Error, health
from mnist37_client.files.secret_file import read_secret
from mnist37_server.errors import CannotStart

from mnist37_cluster.actors import Placement, ServerActor
from mnist37_cluster.connection.ray_connection import import_ray, node
from mnist37_cluster.settings import ClusterSettings

OWNER = "owner"
START_SECONDS = 180.0  # the first start on a node compiles the kernels
END_SECONDS = 60.0  # of all servers, with the calls under way
POLL_SECONDS = 0.1
# Of a replica. Ray spreads actors that ask for something one after the other over the nodes that
# have it; of those that ask for nothing it puts several on one node, while others have none.
REPLICA_CPUS = 0.01
ANSWER_SECONDS = 5.0  # of an actor that is there


def replica_names(settings: ClusterSettings) -> list[str]:
    """Return the names of the actors of the replicas."""
    kind = "front" if settings.front else "follower"
    return [f"{kind}-{number}" for number in range(1, settings.replicas + 1)]


def place_owner(settings: ClusterSettings, address: str) -> Any:  # noqa: ANN401 - Ray's handle
    """Start the actor of the owner on this node, which has its state, and on no other one."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node()[0], soft=False)
    return _place(OWNER, settings, address, here)


def place_replicas(settings: ClusterSettings, owner: str) -> dict[str, Any]:
    """Start the actors of the replicas, spread over the nodes; return them by name."""
    names = replica_names(settings)
    return {name: _place(name, settings, owner, "SPREAD") for name in names}


def _place(name: str, settings: ClusterSettings, owner: str, strategy: object) -> Any:  # noqa: ANN401
    ray = import_ray()
    remote = ray.remote(ServerActor).options(
        name=name,
        num_cpus=0 if name == OWNER else REPLICA_CPUS,
        max_restarts=-1,
        scheduling_strategy=strategy,
    )
    try:
        return remote.remote(name, settings, owner, name == OWNER)
    except ValueError as error:
        raise CannotStart(
            f"--ray: a cluster of mnist37 runs there already: it has an actor {name!r}"
        ) from error


def find(name: str) -> Any:  # noqa: ANN401 - Ray's handle
    """Return an actor; None if there is none of this name."""
    try:
        return import_ray().get_actor(name)
    except ValueError:
        return None


def where(actor: Any, seconds: float = ANSWER_SECONDS) -> Placement | None:  # noqa: ANN401
    """Return where an actor's server is; None if the actor is being started again.

    Raises:
        CannotStart: the server could not be started.
    """
    ray = import_ray()
    try:
        placement: Placement = ray.get(actor.placement.remote(), timeout=seconds)
    except ray.exceptions.ActorDiedError as error:
        found = re.search(r"RuntimeError: (.+)", str(error))
        text = found[1] if found else "an actor has ended for ever"
        raise CannotStart(f"{text}; its lines above say why") from error
    except ray.exceptions.RayError:
        return None
    return placement


def wait_until_serving(
    actor: Any,  # noqa: ANN401
    name: str,
    settings: ClusterSettings,
    is_over: Callable[[], bool],
    previous: Placement | None = None,
) -> Placement | None:
    """Wait until an actor's server serves; return where it is, or None if the wait is over.

    Args:
        actor: of the server.
        name: of the actor.
        settings: of the cluster.
        is_over: returns whether nobody waits any more.
        previous: where the server before was, which is not meant. Its process id alone would not
            tell it: on another node, or in another container, a server may have the same one.

    Raises:
        CannotStart: it does not serve in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_over():
        placement = where(actor)
        if placement is not None and placement != previous and is_serving(placement, settings):
            return placement
        if time.monotonic() > deadline:
            at = f" at {placement.address}" if placement else ""
            raise CannotStart(
                f"{name}{at} does not serve after {START_SECONDS:.0f} s; its log says why, and"
                " whether it reaches the owner"
            )
        time.sleep(POLL_SECONDS)
    return None


def is_serving(placement: Placement, settings: ClusterSettings) -> bool:
    """Return whether a server says that it serves."""
    with suppress(Mnist37Error):
        # An owner outside Ray may speak TLS where its followers speak none.
        health.check(placement.address, **(tls(settings) if settings.tls_cert else {}))
        return True
    return False


def restart_replicas(
    settings: ClusterSettings, owner: str, is_over: Callable[[], bool]
) -> Iterator[Placement]:
    """Restart the replicas one after the other; yield each when it serves and the owner lists it.

    Raises:
        CannotStart: a replica is not there, or does not serve in time; the later ones are left
            alone.
    """
    for name in replica_names(settings):
        actor = find(name)
        before = actor and where(actor, START_SECONDS)
        if before is None:
            raise CannotStart(f"{name} is not there; `mnist37 cluster status` shows which are")
        actor.restart.remote()
        placement = wait_until_serving(actor, name, settings, is_over, before)
        if placement is None:
            return
        wait_until_listed(placement, settings, owner, is_over)
        yield placement


def wait_until_listed(
    placement: Placement, settings: ClusterSettings, owner: str, is_over: Callable[[], bool]
) -> None:
    """Wait until clients that ask the owner find a server; an owner that is away is waited for."""
    deadline = time.monotonic() + START_SECONDS
    with owners_client(settings, owner) as client:
        while not is_over():
            with suppress(Mnist37Error):
                if any(each.address == placement.address for each in client.followers()):
                    return
            if time.monotonic() > deadline:
                raise CannotStart(f"the owner at {owner} does not list {placement.name}")
            time.sleep(POLL_SECONDS)


def end_all(actors: dict[str, Any], hurry: Callable[[], bool]) -> None:
    """End servers in order, and then their actors; `hurry` returns whether to wait no more."""
    ray = import_ray()
    ends = [actor.end.remote() for actor in actors.values()]
    deadline = time.monotonic() + END_SECONDS
    while ends and not hurry() and time.monotonic() < deadline:
        _, ends = ray.wait(ends, num_returns=len(ends), timeout=POLL_SECONDS)
    for actor in actors.values():
        ray.kill(actor, no_restart=True)


def owners_client(settings: ClusterSettings, owner: str) -> Client:
    """Return a client of the owner, with the access of a replica.

    Raises:
        InvalidInput: a file cannot be read.
    """
    file = settings.owner_token_file
    token = None if file is None else read_secret("--owner-token-file", file)
    return Client(
        owner, token=token, insecure=settings.insecure, timeout=5, retry_for=0, **tls(settings)
    )


def tls(settings: ClusterSettings) -> dict[str, Any]:
    """Return the arguments for TLS of a client of the servers."""
    return {
        "tls_ca": settings.owner_tls_ca,
        "tls_cert": settings.owner_tls_cert,
        "tls_key": settings.owner_tls_key,
        "tls_server_name": settings.tls_server_name,
    }
