"""The state of a cluster: its nodes, its servers, and how old their versions are."""

from __future__ import annotations

from typing import Any

from mnist37_client import Follower, Mnist37Error
from mnist37_server.errors import CannotStart

from mnist37_cluster import placement
from mnist37_cluster.actors import Placement
from mnist37_cluster.connection.ray_connection import import_ray
from mnist37_cluster.settings import ClusterSettings


def find_settings() -> tuple[ClusterSettings, str]:
    """Return the settings of the running cluster, and the owner's address.

    Raises:
        CannotStart: no cluster runs, or none of its actors answers.
    """
    ray = import_ray()
    names = [each for each in ray.util.list_named_actors() if isinstance(each, str)]
    if not names:
        raise CannotStart("--ray: no cluster of mnist37 runs there")
    for name in names:
        try:
            found: tuple[ClusterSettings, str] = ray.get(
                placement.find(name).cluster.remote(), timeout=placement.ANSWER_SECONDS
            )
        except (AttributeError, ray.exceptions.RayError):  # it has ended, or is away for a moment
            continue
        return found
    raise CannotStart("--ray: no server of the cluster answers now; try again")


def gather(settings: ClusterSettings, owner: str) -> dict[str, Any]:
    """Return the state of the cluster as one object for JSON."""
    listed, problem = list_followers(settings, owner)
    names = placement.replica_names(settings)
    owners_actor = None if settings.owner is not None else placement.OWNER
    return {
        "nodes": [
            {"node": node["NodeID"], "host": node["NodeManagerAddress"], "alive": node["Alive"]}
            for node in import_ray().nodes()
        ],
        "owner": {"address": owner, "problem": problem, **describe(owners_actor)},
        "replicas": [describe(name, listed) for name in names],
    }


def list_followers(settings: ClusterSettings, owner: str) -> tuple[dict[str, Follower], str | None]:
    """Return the owner's list by address; if there is none, why."""
    try:
        with placement.owners_client(settings, owner) as client:
            return {each.address: each for each in client.followers()}, None
    except Mnist37Error as error:
        return {}, str(error)


def describe(name: str | None, listed: dict[str, Follower] | None = None) -> dict[str, Any]:
    """Return what is known of an actor and of its server; `node` is None while it is away."""
    if name is None:
        return {"name": None, "node": None, "pid": None, "note": "outside Ray"}
    actor, where = placement.find(name), None
    note = "has ended for ever" if actor is None else None
    if actor is not None:
        try:
            where = placement.where(actor)
            note = None if where else "is being started again"
        except CannotStart as error:
            note = str(error)
    found = {"name": name, "node": where and where.node, "pid": where and where.pid, "note": note}
    return found if listed is None else {**found, **position(where, listed)}


def position(where: Placement | None, listed: dict[str, Follower]) -> dict[str, Any]:
    """Return the address of a replica, and what the owner says of it."""
    if where is None:
        return {"address": None, "version": None, "age": None}
    follower = listed.get(where.address)
    return {
        "address": where.address,
        "version": follower and follower.version,
        "age": follower and follower.age,
    }


def lines(state: dict[str, Any]) -> list[str]:
    """Return the lines of a state for people."""
    found = [
        f"node {node['node'][:8]}  {node['host']}  {'alive' if node['alive'] else 'gone'}"
        for node in state["nodes"]
    ]
    owner = state["owner"]
    place = f"node {owner['node'][:8]}" if owner["node"] else owner["note"]
    trouble = f"  {owner['problem']}" if owner["problem"] else ""
    found.append(f"owner  {owner['address']}  {place}{trouble}")
    for replica in state["replicas"]:
        if replica["address"] is None:
            found.append(f"{replica['name']}  {replica['note']}")
            continue
        age = "not in the owner's list"
        if replica["age"] is not None:
            age = f"version {replica['version']}  age {replica['age']:.1f} s"
        node = replica["node"][:8]
        found.append(f"{replica['name']}  {replica['address']}  node {node}  {age}")
    return found
