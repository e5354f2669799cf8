"""The actor of a server: a process of Ray that has one server as its child.

If the server ends, so does the actor's process, and Ray starts the actor again, perhaps on another
node. If the actor's process ends, the kernel kills the server.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from mnist37_cluster.child import Child, ChildFailed, end_process
from mnist37_cluster.settings import ClusterSettings

RETRY_SECONDS = 1.0  # before a server that does not start is tried again


@dataclass(frozen=True)
class Placement:
    """Where a server of the cluster is."""

    name: str
    node: str  # the id of the node
    host: str  # the IP address of the node
    address: str  # of the server, HOST:PORT
    pid: int  # of the server


class ServerActor:
    """A server of the cluster.

    Args:
        name: of the actor.
        settings: of the cluster.
        owner: the address of the model's owner.
        is_owner: whether this server is the owner, or follows it.

    Raises:
        RuntimeError: the server does not start the first time. Later the actor tries again for
            ever: the node may be the wrong one, or an old owner may still hold the state.
    """

    def __init__(self, name: str, settings: ClusterSettings, owner: str, is_owner: bool) -> None:
        import ray

        self._name = name
        self._settings = settings
        self._owner = owner
        self._is_ending = False
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._host = ray.util.get_node_ip_address()
        command = (
            settings.owner_command(owner)
            if is_owner
            else settings.replica_command(self._host, owner)
        )
        try:
            self._child = Child(command)
        except ChildFailed as error:
            text = f"{name} does not start on the node {self._host}: {error}"
            if context.was_current_actor_reconstructed:
                time.sleep(RETRY_SECONDS)
                end_process(text)
            raise RuntimeError(text) from error
        self._watch = threading.Thread(target=self._watch_child, daemon=True)
        self._watch.start()

    def __repr__(self) -> str:
        """Return the name, which Ray prints before each line of the log."""
        return self._name

    def placement(self) -> Placement:
        """Return where the server is."""
        child = self._child
        return Placement(self._name, self._node, self._host, child.address, child.pid)

    def cluster(self) -> tuple[ClusterSettings, str]:
        """Return the settings of the cluster, and the owner's address."""
        return self._settings, self._owner

    def end(self) -> None:
        """End the server in order; the actor stays, without a server, for `ray.kill`."""
        self._is_ending = True
        self._child.end()
        self._watch.join()

    def restart(self) -> None:
        """End the server in order, and then this process: Ray starts the actor again."""
        self._child.end()

    def _watch_child(self) -> None:
        status = self._child.wait()
        if not self._is_ending:
            end_process(f"the server has ended with the status {status}; Ray starts it again")
