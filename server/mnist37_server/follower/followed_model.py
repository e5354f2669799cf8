"""The followed model: reads of the versions that the owner has committed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

from mnist37.examples import Device
from mnist37.losses import Evaluation
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor, Lineage, Position, Standing
from mnist37_server.domain.records import FollowerStats
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.floors import FloorGate
from mnist37_server.engine.followers import FOLLOWERS_MAX, Followers
from mnist37_server.engine.read_model import Reading
from mnist37_server.engine.snapshot_feed import FeedSubscriber, SnapshotFeed, View
from mnist37_server.engine.snapshot_reads import SnapshotReads
from mnist37_server.errors import Reason, Unavailable, version_not_retained
from mnist37_server.follower.follow_loop import FollowLoop
from mnist37_server.follower.owners_work import OwnersWork
from mnist37_server.follower.replica import Replica
from mnist37_server.rpc.threads.elastic_pool import replace_waiting_thread
from mnist37_server.training.evaluator import Evaluator

FETCHES_MAX = 64  # reads that wait for the owner at a time
VERSION_MAX = 2**64 - 1

# Returns a version, by its number or a tag, and the owner's start; the owner's history must have
# the position.
Fetch = Callable[[int | str, Position], tuple[Snapshot, int]]


class FollowedModel(OwnersWork, SnapshotReads):
    """The model of an owner, as far as a follower has it.

    A read takes one reference, to the newest snapshot and its history. Versions that are not held,
    and tags, are asked of the owner.

    Args:
        replica: what is held of the model.
        fetch: asks the owner for a version.
        loop: keeps the replica up to date.
        evaluator: computes losses.
        max_age: the age in seconds up to which the newest version is good enough for reads; None
            means any.
        max_followers: how many followers this one may have in turn.
    """

    def __init__(
        self,
        replica: Replica,
        fetch: Fetch,
        loop: FollowLoop,
        evaluator: Evaluator,
        max_age: float | None = None,
        max_followers: int = FOLLOWERS_MAX,
    ) -> None:
        super().__init__()
        self.replica = replica
        self.followers = Followers(self, max_followers)
        self._fetch = fetch
        self._loop = loop
        self._evaluator = evaluator
        self._max_age = max_age
        self._free_fetches = threading.BoundedSemaphore(FETCHES_MAX)

    @property
    def device(self) -> Device:
        """Return the device that computes losses."""
        return self._evaluator.device

    @property
    def owner(self) -> str:
        """Return the address of the owner: what the server that is followed says, if it follows."""
        return self.replica.route.owner

    def subscribe(self) -> FeedSubscriber:
        """Return a subscriber for a follower of this follower.

        Raises:
            Unavailable: no version has come yet. The metadata name the followers on the way to this
                one, so that followers that follow each other in a circle notice it.
        """
        if self.replica.feed is None:
            refusal = self._not_ready()
            owner, followers = self.replica.route
            refusal.metadata.update(owner=owner, followers=" ".join(followers))
            raise refusal
        return self.replica.feed.subscribe()

    def view(self) -> View:
        """Return what a follower of this follower is sent."""
        return self.replica.view()

    @property
    def start(self) -> int:
        """Return the id of the owner's start."""
        return self._feed.current[1].start

    def at(self, version: int | str | None = None, floor: Floor | None = None) -> Reading:
        """Return the newest version, or another one, and the owner's start.

        Args:
            version: its number, or a tag; None for the newest.
            floor: the position that the follower must have reached; None means any.

        Raises:
            NotFound: the owner does not retain this version, or there is no such tag.
            FailedPrecondition: the floor is in no history of this model.
            Unavailable: the floor is not reached in time, the newest version is too old, or the
                owner is needed and cannot be reached.
        """
        snapshot, lineage = self._feed.current
        if floor is not None:
            # The history may be replaced between the gate and the look at it.
            while lineage.standing(floor, snapshot.version) is not Standing.REACHED:
                self._floors.wait(floor)
                snapshot, lineage = self._feed.current
        if self._max_age is not None:
            self._check_age(self._max_age)
        if version is None or version == snapshot.version:
            return Reading(snapshot, lineage.start)
        return self._find(version, snapshot, lineage)

    def version_numbers(self) -> list[int]:
        """Return the numbers of the versions that are held, newest first."""
        versions = self.replica.versions_of(self._feed.current[1])
        return [] if versions is None else versions.numbers()

    def follower_stats(self) -> FollowerStats:
        """Return the follower's stats, for the metrics."""
        position = self.replica.position
        followers = self.followers.records()
        return FollowerStats(
            version=None if position is None else position.version,
            age_seconds=self.replica.age,
            resets=self.replica.resets,
            connected=self._loop.is_connected,
            images_predicted=self.predictions.images,
            followers=len(followers),
            lag_seconds=max((record.age for record in followers), default=0.0),
        )

    @property
    def _feed(self) -> SnapshotFeed:
        feed = self.replica.feed
        if feed is None:
            raise self._not_ready()
        return feed

    def _not_ready(self) -> Unavailable:
        return Unavailable(
            f"the follower has not got a version of its owner {self.owner} yet",
            Reason.OWNER_UNREACHABLE,
        )

    @cached_property  # there is no feed before the first version
    def _floors(self) -> FloorGate:
        return FloorGate(self._feed, self._loop.heard_lately)

    def _check_age(self, max_age: float) -> None:
        # Here and not by a timer: a process that was paused answers before its timers run.
        age = self.replica.age
        if age is None or age > max_age:
            raise Unavailable(
                f"the follower has not heard for {age or 0:.1f} seconds that its version is the"
                f" newest, and may answer for {max_age:g}; ask the owner {self.owner}, or again"
                " later",
                Reason.STALE,
            )

    def _find(self, version: int | str, newest: Snapshot, lineage: Lineage) -> Reading:
        versions = self.replica.versions_of(lineage)
        if versions is not None and isinstance(version, int):
            held = versions.get(version)
            if held is not None:
                return Reading(held, lineage.start)
        if isinstance(version, int) and version > VERSION_MAX:  # no message can ask for it
            raise version_not_retained(version, newest.version)
        if not self._free_fetches.acquire(blocking=False):
            raise Unavailable(
                f"{FETCHES_MAX} reads wait for the owner {self.owner} already; ask again",
                Reason.OWNER_UNREACHABLE,
            )
        try:
            with replace_waiting_thread():
                position = Position(lineage.start, newest.version)
                snapshot, start = self._fetch(version, position)
        finally:
            self._free_fetches.release()
        # An owner that has started anew since then may have a new history with the same number.
        if versions is not None and start == lineage.start:
            versions.add_fetched(snapshot)
        return Reading(snapshot, start)

    def _evaluate(self, snapshot: Snapshot, source: Split | Batch) -> Evaluation:
        return self._evaluator.evaluate(snapshot, source)
