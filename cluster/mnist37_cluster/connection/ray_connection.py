"""The connection of this process to Ray, and the Ray that it starts on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mnist37_server.domain.address import parse
from mnist37_server.errors import CannotStart

from mnist37_cluster.connection import listeners, session

NAMESPACE = "mnist37"  # of the actors' names
LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 5.0
STORE_BYTES = 80 * 2**20  # of Ray's object store, which holds nothing here: the least that it takes
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
# Variables that Ray reads when it is imported; its processes inherit them.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # each line of a server is shown
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Ray reads this name on every system: its node's address is 127.0.0.1, and it listens there alone.
# With another address of the node, 127.0.0.2 too, it listens on all addresses of the machine.
LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def started(replicas: int, expose: bool) -> Iterator[list[listeners.Listener]]:
    """Run a Ray on this machine while the block takes; yield where it listens.

    Args:
        replicas: how many actors it shall be ready for.
        expose: start it although other machines reach it.

    Raises:
        CannotStart: other machines reach it, or Ray does not start.
    """
    list(session.read_all())  # deletes what killed commands have left
    token = secrets.token_hex(32)
    os.environ.update({**QUIET, **LOOPBACK_ALONE, AUTH_MODE: "token", AUTH_TOKEN: token})
    # Its sockets and logs are in a folder that only this user may enter. Ray opens its own one to
    # all. The path is short: that of a socket file has at most 107 bytes.
    try:
        folder = tempfile.mkdtemp(prefix="mnist37-ray-", dir="/tmp")
    except OSError as error:
        raise CannotStart(f"/tmp: no folder for Ray can be made: {error.strerror}") from error
    try:
        with _connection(
            "Ray does not start",
            num_cpus=replicas + 1,  # as many processes are started before they are needed
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=f"{folder}/ray",
        ):
            found = listeners.find_listeners()
            if not expose:
                listeners.check_unreachable(found, listeners.other_addresses())
            with session.recorded(address(), token, folder):
                yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def attached(ray_address: str | None, show_logs: bool) -> Iterator[None]:
    """Be connected to a running Ray while the block takes.

    Args:
        ray_address: HOST:PORT of the Ray; None for the one that this user's cluster has started.
        show_logs: show the lines of the actors.

    Raises:
        CannotStart: there is no such Ray, or it refuses the connection.
    """
    found = session.find(ray_address)
    check_listens(ray_address if found is None else found.address)
    os.environ.update(QUIET)
    if found is not None:
        os.environ.update({**LOOPBACK_ALONE, AUTH_MODE: "token", AUTH_TOKEN: found.token})
        ray_address = found.address
    with _connection("--ray", address=ray_address, log_to_driver=show_logs):
        yield


def check_listens(ray_address: str | None) -> None:
    """Raise CannotStart unless something listens at an address: Ray would wait for minutes."""
    address = parse("--ray", str(ray_address), accepts_unix=False)
    try:
        socket.create_connection((address.host, address.port), CONNECT_SECONDS).close()
    except OSError as error:
        raise CannotStart(
            f"--ray: no Ray listens at {address}: {error.strerror or 'no answer'}; give the address"
            " of its head, as `ray start` prints it"
        ) from error


@contextmanager
def _connection(failure: str, **options: Any) -> Iterator[None]:  # noqa: ANN401 - of ray.init
    """Be connected while the block takes; `failure` begins the text of an error."""
    ray = import_ray()
    try:
        with keeping_signals():
            ray.init(namespace=NAMESPACE, logging_level="error", configure_logging=True, **options)
    except Exception as error:  # Ray raises many kinds, some of them plain Exceptions
        ray.shutdown()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotStart(f"{failure}: {lines[0]}") from error
    try:
        yield
    finally:
        with keeping_signals():
            ray.shutdown()


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Undo what Ray does to the handlers of signals: this process ends in its own order."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def import_ray() -> Any:  # noqa: ANN401 - a module that need not be there
    """Return the module of Ray.

    Raises:
        CannotStart: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise CannotStart("it needs more than a server: pip install 'mnist37[ray]'") from error
    return ray


def address() -> str:
    """Return HOST:PORT of the Ray that this process is connected to."""
    found: str = import_ray().get_runtime_context().gcs_address
    return found


def node() -> tuple[str, str]:
    """Return the id and the IP address of the node that this process is on."""
    ray = import_ray()
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
