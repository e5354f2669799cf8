"""The followers of the model: readers that get each committed version, the newest one first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mnist37_server.domain.position import Position
from mnist37_server.engine.snapshot_feed import FeedSubscriber, View
from mnist37_server.errors import Exhausted, Reason

FOLLOWERS_MAX = 64
HEARTBEAT_SECONDS = 1.0  # the longest time between two messages to a follower
# Of one core, for the messages to all followers together.
CORE_SHARE = 0.1
# What grpcio's own threads take for a message, beside the thread that sends it.
CORE_SECONDS = 40e-6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FollowerRecord:
    """A reader that follows the model."""

    name: str  # empty for a reader without a name
    address: str  # at which others reach it; empty if it gave none
    sent: Position | None  # the last position that it was sent
    age: float  # seconds since this position ceased to be the newest; 0 if it is the newest
    connected_at: float  # seconds since 1970


@dataclass(eq=False)
class Follower:
    """A connected follower.

    Attributes:
        name: its name; empty for a reader without one.
        address: at which others reach it.
        subscriber: gives it the versions.
        min_interval: the least seconds between two messages that it wants.
    """

    name: str
    address: str
    subscriber: FeedSubscriber
    min_interval: float
    sent: Position | None = None
    connected_at: float = field(default_factory=time.time)


class Source(Protocol):
    """A source of versions for followers: an owner, or a follower that passes them on."""

    def subscribe(self) -> FeedSubscriber:
        """Return a new subscriber; it is woken by each version, and each word about the newest."""

    def view(self) -> View:
        """Return the newest version, and what is known about it."""


class Followers:
    """The connected followers, and the pace at which they are served.

    All followers together take at most a tenth of a core: the time between two messages to one of
    them grows with their number and with what a message costs.

    Args:
        source: has the versions.
        limit: the most followers.
    """

    def __init__(self, source: Source, limit: int = FOLLOWERS_MAX) -> None:
        self._source = source
        self._limit = limit
        # guarded by _lock: _connected, and changes of _message_seconds
        self._lock = threading.Lock()
        self._connected: list[Follower] = []
        self._message_seconds = 100e-6  # what a message costs, measured as messages are sent

    def connect(self, name: str, address: str, min_interval: float) -> Follower:
        """Add a follower; one that has the same name is disconnected.

        Raises:
            Exhausted: there are too many followers.
            Unavailable: the source has no version yet.
        """
        with self._lock:
            earlier = [other for other in self._connected if name and other.name == name]
            if len(self._connected) - len(earlier) >= self._limit:
                raise Exhausted(
                    f"there are {self._limit:,} followers already; try again later",
                    Reason.TOO_MANY_STREAMS,
                )
            follower = Follower(name, address, self._source.subscribe(), min_interval)
            self._connected = [
                *(other for other in self._connected if other not in earlier),
                follower,
            ]
        for other in earlier:
            other.subscriber.close()
        log.info("a follower connected", extra=describe(follower))
        return follower

    def disconnect(self, follower: Follower) -> None:
        """Remove a follower, and end its `updates`; any thread may call it, more than once."""
        follower.subscriber.close()
        with self._lock:
            if follower not in self._connected:
                return
            self._connected.remove(follower)
        log.info("a follower disconnected", extra=describe(follower))

    def updates(self, follower: Follower) -> Iterator[View]:
        """Yield the newest version, then each new one or, once a second, the same one again.

        The caller sends what it gets before it asks for more. Meanwhile, and while the follower has
        to rest, it misses what is committed. It ends when the source has another start, or is
        reached on another way: both are told at the begin of a stream.
        """
        first: View | None = None
        follower.subscriber.next()
        while not follower.subscriber.is_closed:
            view = self._source.view()
            follower.subscriber.skip(view.snapshot)
            first = first or view
            if (view.lineage.start, view.route) != (first.lineage.start, first.route):
                return
            began = time.thread_time()
            yield view
            self._record_message(time.thread_time() - began)
            follower.sent = Position(view.lineage.start, view.snapshot.version)
            rest = self.rest_seconds(follower)
            time.sleep(rest)
            follower.subscriber.next(max(0.0, HEARTBEAT_SECONDS - rest))

    def _record_message(self, thread_seconds: float) -> None:
        seconds = thread_seconds + CORE_SECONDS
        with self._lock:
            self._message_seconds += (seconds - self._message_seconds) / 16

    def rest_seconds(self, follower: Follower) -> float:
        """Return the least time between two messages to a follower, in seconds."""
        shared = len(self._connected) * self._message_seconds / CORE_SHARE
        return max(shared, follower.min_interval)

    def records(self) -> list[FollowerRecord]:
        """Return the connected followers, in the order in which they came."""
        with self._lock:
            connected = self._connected.copy()
        return [
            FollowerRecord(
                follower.name,
                follower.address,
                follower.sent,
                follower.subscriber.pending_seconds(),
                follower.connected_at,
            )
            for follower in connected
        ]


def describe(follower: Follower) -> dict[str, object]:
    """Return the fields of a follower for the log."""
    return {"follower": follower.name or "unnamed", "follower_address": follower.address}
