"""The gate that keeps a read waiting until the model has reached the read's floor."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mnist37_server.domain.position import Floor, Position, Standing
from mnist37_server.engine.snapshot_feed import FeedSubscriber, SnapshotFeed
from mnist37_server.errors import FailedPrecondition, Reason, Unavailable
from mnist37_server.rpc.threads.elastic_pool import replace_waiting_thread

WAIT_SECONDS = 0.25
WAITING_READS_MAX = 64


class FloorGate:
    """A gate for reads with a floor, which most reads pass without a wait.

    Args:
        feed: has the newest version.
        knows_all_starts: returns whether the feed's lineage has the owner's present start. Then a
            start that is not in it is of another history; otherwise it may become known. None for
            the owner itself, which learns of no other start.
    """

    def __init__(
        self, feed: SnapshotFeed, knows_all_starts: Callable[[], bool] | None = None
    ) -> None:
        self._feed = feed
        self._may_change = {Standing.BEHIND}
        if knows_all_starts is not None:
            self._may_change.add(Standing.UNKNOWN)
        self._knows_all_starts = knows_all_starts or (lambda: True)
        # guarded by _lock: _waiting
        self._lock = threading.Lock()
        self._waiting: deque[FeedSubscriber] = deque()  # of the waiting reads, oldest first

    def wait(self, floor: Floor) -> None:
        """Wait until the newest version has reached a floor, for 250 ms at most.

        Raises:
            FailedPrecondition: the floor is in no history of this model.
            Unavailable: the floor was not reached in time, or too many reads wait since then.
        """
        standing = self._standing(floor)
        if standing in self._may_change:
            standing = self._wait(floor)
        if standing is Standing.REACHED:
            return
        newest, lineage = self._feed.current
        is_foreign = standing is Standing.UNKNOWN and self._knows_all_starts()
        if standing is Standing.LOST or is_foreign:
            raise history_lost(Position(lineage.start, newest.version), floor)
        raise behind_error(newest.version, floor)

    def _standing(self, floor: Floor) -> Standing:
        newest, lineage = self._feed.current
        return lineage.standing(floor, newest.version)

    def _wait(self, floor: Floor) -> Standing:
        with replace_waiting_thread(), self._feed.subscribe() as subscriber:
            self._take_place(subscriber)
            try:
                end_time = time.monotonic() + WAIT_SECONDS
                while (standing := self._standing(floor)) is not Standing.REACHED:
                    seconds = end_time - time.monotonic()
                    if seconds <= 0 or standing is Standing.LOST or subscriber.is_closed:
                        break
                    subscriber.next(seconds)
                return standing
            finally:
                with self._lock, suppress(ValueError):  # another read has its place already
                    self._waiting.remove(subscriber)

    def _take_place(self, subscriber: FeedSubscriber) -> None:
        """Take a place for a read that begins to wait; if there is none, that of the oldest read.

        Most floors are reached within milliseconds. So who asks for floors that are never reached
        takes the places of reads like its own, and not those of the others.
        """
        with self._lock:
            is_full = len(self._waiting) >= WAITING_READS_MAX
            oldest = self._waiting.popleft() if is_full else None
            self._waiting.append(subscriber)
        if oldest is not None:
            oldest.close()


def history_lost(position: Position, floor: Floor) -> FailedPrecondition:
    """Return the refusal of a read whose floor is in no history of this model.

    Args:
        position: of the server.
        floor: of the caller.
    """
    return FailedPrecondition(
        f"start: version {floor.version or 0} of start {floor.start} is not in this model's"
        " history: a backup was restored, or this is another model; begin again without a floor."
        f" The model is at version {position.version} of start {position.start}",
        Reason.HISTORY_LOST,
        start=position.start,
        version=position.version,
        floor_start=floor.start or 0,
        floor_version=floor.version or 0,
    )


def behind_error(newest: int, floor: Floor) -> Unavailable:
    """Return the refusal of a read whose floor this server has not reached in time."""
    return Unavailable(
        f"min_version: the model is at version {newest} here, and not yet at"
        f" {floor.version or 0}; ask again, or the owner",
        newest=newest,
        floor_version=floor.version or 0,
    )
