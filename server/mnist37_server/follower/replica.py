"""The replica of an owner's model: its newest version, its history, and older versions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from mnist37.kernels import PIXELS
from mnist37_server.domain.position import Floor, Lineage, Position, Standing
from mnist37_server.domain.route import AT_THE_OWNER, Route
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.domain.version_cache import VersionCache
from mnist37_server.engine.snapshot_feed import SnapshotFeed, View

HEARD_VERSIONS = 1_000  # that came by Follow
FETCHED_VERSIONS = 1_000  # that callers asked for, and that the owner was asked for
CONTENT_BYTES = 4 * (PIXELS + 1)

log = logging.getLogger(__name__)


class Update(NamedTuple):
    """A message of the owner, or of a follower that passes it on: its newest version."""

    position: Position
    content: bytes  # the parameters; empty if the follower has this version already
    origin: Origin
    run: int | None
    starts: tuple[Position, ...]  # the owner's, newest first, in the first message of a stream
    age: float = 0.0  # seconds since the sender certainly had the owner's newest version
    is_heard: bool = True  # whether the sender hears the owner
    route: Route = AT_THE_OWNER  # to the sender, in the first message of a stream


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


class Held(NamedTuple):
    """The newest version that came, and what is known about it."""

    snapshot: Snapshot
    lineage: Lineage
    newest_at: float  # when it certainly was the owner's newest, on time.monotonic's clock
    is_heard: bool  # whether the owner is heard, here and by the followers in between


class Stream(NamedTuple):
    """The properties of a stream that its first message tells."""

    lineage: Lineage
    is_passed_on: bool  # whether the sender is a follower, and not the owner


class Replica:
    """The copy of the owner's model: one thread changes it, any thread reads it.

    Args:
        route: the way from the owner, as far as it is known.

    Attributes:
        on_first: called once, after the first version has come.
        feed: the newest version and its history; None before the first version has come.
        resets: how often the owner turned out to have another history.
        route: the way from the owner.
    """

    def __init__(self, route: Route = AT_THE_OWNER) -> None:
        self.on_first: Callable[[], None] = lambda: None
        self.feed: SnapshotFeed | None = None
        self.resets = 0
        self.route = route
        # One tuple, so that a follower of this follower never gets the age of another version.
        self._held: Held | None = None
        self._stream: Stream | None = None
        # Of one history, which is named here: a reader that has the newest version of one history
        # must not take an older version of another one.
        self._versions: tuple[Lineage, Versions] | None = None

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

        It is the time since the follower held what the owner then said was its newest version,
        over however many followers; None before the first one.
        """
        held = self._held
        return None if held is None else time.monotonic() - held.newest_at

    @property
    def is_heard(self) -> bool:
        """Return whether the last message came from an owner that was heard all the way."""
        return self._held is not None and self._held.is_heard

    def view(self) -> View:
        """Return the newest version, and what is known about it; not before the first version."""
        held = self._held
        assert held is not None
        age = max(0.0, time.monotonic() - held.newest_at)
        return View(held.snapshot, held.lineage, age, held.is_heard, self.route)

    def lose(self) -> None:
        """Note that the owner is no longer heard, and tell those who follow this follower."""
        if self._held is not None and self._held.is_heard:
            self._held = self._held._replace(is_heard=False)
            assert self.feed is not None
            self.feed.confirm()

    def versions_of(self, lineage: Lineage) -> Versions | None:
        """Return the versions held of a history; None if it is no longer the present one."""
        versions = self._versions
        return versions[1] if versions is not None and versions[0] is lineage else None

    def receive(self, update: Update, received_at: float) -> None:
        """Take over a message of the owner.

        In one history the newest version only ever rises. If the owner has another history than
        the replica, all that the replica holds is dropped. What a follower says that is behind this
        one changes nothing.

        Args:
            update: the message.
            received_at: when it came, on time.monotonic's clock.

        Raises:
            InvalidUpdate: the contract does not allow the message.
        """
        stream = self._stream = self._stream_of(update)
        lineage, newest_at = stream.lineage, received_at - update.age
        held, position = self._held, self.position
        if held is None or position is None:
            snapshot, versions = self._new_snapshot(update), Versions()
        elif stream.is_passed_on and self._is_outdated(update.position, newest_at, held, lineage):
            return
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
            versions = Versions()
        elif update.position.version == position.version:
            snapshot, versions = held.snapshot, self._kept_versions()
        else:
            snapshot, versions = self._new_snapshot(update), self._kept_versions()
        self._begin(Held(snapshot, lineage, newest_at, update.is_heard), versions)
        if held is None:
            self.on_first()

    def _begin(self, held: Held, versions: Versions) -> None:
        before, self._held = self._held, held
        versions.heard.add(held.snapshot)
        self._versions = held.lineage, versions
        if before is None or self.feed is None:
            self.feed = SnapshotFeed(held.snapshot, held.lineage)
            return
        if before[:2] != held[:2]:
            self.feed.publish(held.snapshot, held.lineage)
        if before.snapshot is held.snapshot:  # its own followers want to know that it is the newest
            self.feed.confirm()

    def _is_outdated(
        self, position: Position, newest_at: float, held: Held, lineage: Lineage
    ) -> bool:
        """Return whether the follower that has sent a position knows less than this one.

        Only the owner's newest version is the newest. A follower may be behind another one that
        was followed before at the same address.
        """
        ours = Position(held.lineage.start, held.snapshot.version)
        standing = held.lineage.standing(Floor(*position), ours.version)
        if standing is not Standing.UNKNOWN:
            return standing is Standing.LOST or (standing is Standing.REACHED and position != ours)
        # Neither has heard of the other's start: the one that heard of its model later is right.
        is_foreign = lineage.standing(Floor(*ours), position.version) is Standing.UNKNOWN
        return is_foreign and newest_at < held.newest_at

    def _kept_versions(self) -> Versions:
        assert self._versions is not None
        return self._versions[1]

    def _stream_of(self, update: Update) -> Stream:
        if update.starts:
            stream = Stream(Lineage(update.starts), bool(update.route.followers))
        elif self._stream is not None:
            stream = self._stream
        else:
            raise InvalidUpdate("the first message has no starts")
        if update.position.start != stream.lineage.start:
            raise InvalidUpdate("the position's start is not the first of the starts")
        return stream

    def _new_snapshot(self, update: Update) -> Snapshot:
        if len(update.content) != CONTENT_BYTES:
            raise InvalidUpdate(
                f"the parameters of version {update.position.version} have"
                f" {len(update.content):,} bytes and not {CONTENT_BYTES:,}"
            )
        # The position among the mini-batches is the owner's alone.
        return Snapshot(update.position.version, update.content, 0, update.origin, update.run)
