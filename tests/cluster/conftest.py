"""Fixtures of the cluster's tests: a network namespace that has lo alone, and Ray in it.

Ray listens on all addresses as soon as its node has another address than 127.0.0.1. So these tests
move their process into a namespace of its own, and are skipped where they may not.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import pytest

# Before any test imports grpc: Ray forks this process, in which threads of gRPC are at work.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
STORE_BYTES = 80 * 2**20
# A node that is silent is given up after five checks, and not after 30 s.
CHECKS = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}


@pytest.fixture(scope="session", autouse=True)
def namespace() -> None:
    """Move this process into a network namespace with lo alone."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'mnist37[ray]'")
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(CLONE_NEWNET) and unshare(CLONE_NEWUSER | CLONE_NEWNET):
        pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    os.environ.update(
        {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    )


@pytest.fixture
def nodes(add_node: Callable[..., Any]) -> Iterator[Any]:
    """Start three nodes of Ray; yield the cluster."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        add_node(cluster, include_dashboard=False, _system_config=CHECKS)
        for _ in range(2):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def add_node() -> Callable[..., Any]:
    """Return a function that adds a node to a cluster.

    It tries again: on a busy machine Ray waits too short a time for its own parts.
    """

    def add(cluster: Any, **options: Any) -> Any:
        options |= {"num_cpus": 2, "object_store_memory": STORE_BYTES}
        for _ in range(2):
            with suppress(Exception):
                return cluster.add_node(**options)
        return cluster.add_node(**options)

    return add
