"""A follower of a model: it has no state, and answers reads from what the owner sends it."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from mnist37 import data
from mnist37.host import Host
from mnist37.training import Datasets
from mnist37_server.access import certificates, tls
from mnist37_server.config import Following
from mnist37_server.domain.address import WILDCARDS, Address, join
from mnist37_server.domain.route import Route
from mnist37_server.engine.followers import FOLLOWERS_MAX
from mnist37_server.follower.follow_loop import FollowLoop
from mnist37_server.follower.followed_model import FollowedModel
from mnist37_server.follower.replica import Replica
from mnist37_server.follower.upstream import Upstream
from mnist37_server.services.health import Health
from mnist37_server.training.evaluator import Evaluator

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


class ShippedImages:
    """The images in the package, which are loaded when a loss on them is first asked for."""

    def __init__(self) -> None:
        # guarded by _lock: _datasets
        self._lock = threading.Lock()
        self._datasets: Datasets | None = None

    def __call__(self) -> Datasets:
        """Return the images."""
        with self._lock:
            if self._datasets is None:
                self._datasets = Datasets(data.load(), Host())
            return self._datasets


class Follower:
    """The role of a server that follows the owner of its model.

    Args:
        following: the settings.
        address: where the server listens.
        max_followers: how many followers it may have in turn.

    Raises:
        CannotStart: a file of the settings cannot be used.
    """

    is_ready = False

    def __init__(
        self, following: Following, address: Address, max_followers: int = FOLLOWERS_MAX
    ) -> None:
        self._followed = following.owner
        tls.check_token_file(following)
        tls.owner_credentials(following)  # wrong files are told at the start
        certificates.check_following(following)
        name, followed = f"follower-{secrets.token_hex(8)}", str(following.parsed_owner)
        # Until it answers, the server that is followed is taken for the owner.
        self._replica = Replica(Route(followed, (name,)))
        upstream = Upstream(
            followed,
            partial(tls.owner_credentials, following),
            following.token_file,
            name=name,
            advertised=following.advertise or reachable(address),
            server_name=following.tls_server_name,
        )
        self._loop = FollowLoop(upstream, self._replica, following.flag)
        self.model = FollowedModel(
            self._replica,
            upstream.fetch,
            self._loop,
            Evaluator(ShippedImages(), Host(), lambda: None),
            following.max_age,
            max_followers,
        )

    def describe(self) -> Mapping[str, object]:
        """Return the address of the owner, and the version that came from it last."""
        position = self._replica.position
        return {
            "owner": self.model.owner,
            "version": None if position is None else position.version,
        }

    def summary(self) -> str:
        """Return the address of the server that is followed."""
        return f"following {self._followed}"

    def collector(self) -> Collector:
        """Return the collector of the follower's metrics."""
        from mnist37_server.observability.follower_metrics import FollowerMetrics

        return FollowerMetrics(self.model)

    def begin(self, health: Health) -> None:
        """Follow the owner; the health says SERVING from the first version on."""
        self._replica.on_first = health.begin_serving
        self._loop.start()

    def stop(self) -> None:
        """End the connection to the owner."""
        self._loop.close()

    def close(self) -> None:
        """Do nothing: a follower has no state."""


def reachable(address: Address) -> str:
    """Return where others probably reach a server; every address of a machine has its name."""
    if address.host in WILDCARDS:
        return join(socket.gethostname(), address.port)
    return str(address)
