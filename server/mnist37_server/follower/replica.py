"""The replica of an owner's model: its newest version, its history, and older versions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from mnist37.kernels import PIXELS
from mnist37_server.domain.position import Lineage, Position
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.domain.version_cache import VersionCache
from mnist37_server.engine.snapshot_feed import SnapshotFeed

HEARD_VERSIONS = 1_000  # that came by Follow
FETCHED_VERSIONS = 1_000  # that callers asked for, and that the owner was asked for
CONTENT_BYTES = 4 * (PIXELS + 1)

log = logging.getLogger(__name__)


class Update(NamedTuple):
    """A message of the owner: its newest version."""

    position: Position
    content: bytes  # the parameters; empty if the follower has this version already
    origin: Origin
    run: int | None
    starts: tuple[Position, ...]  # the owner's, newest first, in the first message of a stream


class InvalidUpdate(Exception):
    """A message that the contract of Follow does not allow."""


class Versions:
    """The versions of one history that are held in memory.

    Versions that callers ask for never displace those that came by Follow: these are what the
    follower answers from while its owner is away.
    """

    def __init__(self) -> None:
        self.heard = VersionCache(HEARD_VERSIONS)  # only the thread of Follow adds to it
        # guarded by _lock: additions to _fetched
        self._lock = threading.Lock()
        self._fetched = VersionCache(FETCHED_VERSIONS)

    def get(self, version: int) -> Snapshot | None:
        """Return a version; None if it is not held."""
        return self.heard.get(version) or self._fetched.get(version)

    def add_fetched(self, snapshot: Snapshot) -> None:
        """Add a version that a caller asked for; any thread may call it."""
        with self._lock:
            self._fetched.add(snapshot)

    def numbers(self) -> list[int]:
        """Return the numbers of the versions, newest first."""
        return sorted({*self.heard.numbers(), *self._fetched.numbers()}, reverse=True)


class Replica:
    """The copy of the owner's model: one thread changes it, any thread reads it.

    Attributes:
        on_first: called once, after the first version has come.
        feed: the newest version and its history; None before the first version has come.
        resets: how often the owner turned out to have another history.
    """

    def __init__(self) -> None:
        self.on_first: Callable[[], None] = lambda: None
        self.feed: SnapshotFeed | None = None
        self.resets = 0
        # Of one history, which is named here: a reader that has the newest version of one history
        # must not take an older version of another one.
        self._versions: tuple[Lineage, Versions] | None = None
        self._held_newest_at: float | None = None  # on time.monotonic's clock

    @property
    def position(self) -> Position | None:
        """Return the position of the newest version; None before the first one."""
        if self.feed is None:
            return None
        snapshot, lineage = self.feed.current
        return Position(lineage.start, snapshot.version)

    @property
    def age(self) -> float | None:
        """Return for how many seconds the newest version may have been out of date.

        It is the time since the follower held what the owner then said was its newest version;
        None before the first one.
        """
        held_newest_at = self._held_newest_at
        return None if held_newest_at is None else time.monotonic() - held_newest_at

    def versions_of(self, lineage: Lineage) -> Versions | None:
        """Return the versions held of a history; None if it is no longer the present one."""
        versions = self._versions
        return versions[1] if versions is not None and versions[0] is lineage else None

    def receive(self, update: Update, received_at: float) -> None:
        """Take over a message of the owner.

        In one history the newest version only ever rises. If the owner has another history than
        the replica, all that the replica holds is dropped.

        Args:
            update: the message.
            received_at: when it came, on time.monotonic's clock.

        Raises:
            InvalidUpdate: the contract does not allow the message.
        """
        lineage = self._lineage_of(update)
        held = None if self.feed is None else self.feed.current
        position = self.position
        if held is None or position is None:
            self._begin(self._new_snapshot(update), lineage, Versions())
        elif not update.starts and update.position.version < position.version:
            return  # a message from before, in the same stream
        elif not lineage.contains(position, update.position.version):
            snapshot = self._new_snapshot(update)
            self.resets += 1
            log.warning(
                "the owner has another history: a backup was restored, or it is another model; all"
                " versions held are dropped",
                extra={"held_version": position.version, "version": snapshot.version},
            )
            self._begin(snapshot, lineage, Versions())
        elif update.position.version == position.version:
            self._begin(held[0], lineage, self._kept_versions())
        else:
            self._begin(self._new_snapshot(update), lineage, self._kept_versions())
        self._held_newest_at = received_at
        if held is None:
            self.on_first()

    def _begin(self, snapshot: Snapshot, lineage: Lineage, versions: Versions) -> None:
        versions.heard.add(snapshot)
        self._versions = lineage, versions
        if self.feed is None:
            self.feed = SnapshotFeed(snapshot, lineage)
        elif self.feed.current != (snapshot, lineage):
            self.feed.publish(snapshot, lineage)

    def _kept_versions(self) -> Versions:
        assert self._versions is not None
        return self._versions[1]

    def _lineage_of(self, update: Update) -> Lineage:
        if update.starts:
            lineage = Lineage(update.starts)
        elif self.feed is not None:
            lineage = self.feed.current[1]
        else:
            raise InvalidUpdate("the first message has no starts")
        if update.position.start != lineage.start:
            raise InvalidUpdate("the position's start is not the first of the starts")
        return lineage

    def _new_snapshot(self, update: Update) -> Snapshot:
        if len(update.content) != CONTENT_BYTES:
            raise InvalidUpdate(
                f"the parameters of version {update.position.version} have"
                f" {len(update.content):,} bytes and not {CONTENT_BYTES:,}"
            )
        # The position among the mini-batches is the owner's alone.
        return Snapshot(update.position.version, update.content, 0, update.origin, update.run)
