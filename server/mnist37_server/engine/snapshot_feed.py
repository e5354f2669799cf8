"""The committed versions as they come: the newest for readers, and a feed for subscribers.

Subscribers are whoever has to hear of each commit, and not only ask now and then: copies of the
model in other processes, pages that show it.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from mnist37_server.domain.snapshot import Snapshot


class SnapshotFeed:
    """Holds the newest committed version, and wakes whoever subscribes at each new one.

    Readers take `newest` without a lock: it is one reference to a value that never changes.

    Args:
        newest: the version that is committed.
    """

    def __init__(self, newest: Snapshot) -> None:
        self.newest = newest  # replaced by the thread that commits, read by any
        self._lock = threading.Lock()
        self._subscribers: tuple[FeedSubscriber, ...] = ()  # replaced under _lock

    def publish(self, snapshot: Snapshot) -> None:
        """Make a committed version the newest; never waits for a subscriber."""
        self.newest = snapshot
        for subscriber in self._subscribers:
            subscriber.notify()

    def subscribe(self) -> FeedSubscriber:
        """Return a subscriber, who is given the newest version first."""
        subscriber = FeedSubscriber(self)
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
        return subscriber

    def unsubscribe(self, subscriber: FeedSubscriber) -> None:
        """End a subscription."""
        with self._lock:
            self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
        subscriber.notify()


class FeedSubscriber:
    """One subscription: a slow subscriber misses the versions between, never the newest.

    Versions never go back. Use it in one thread; any thread may close it.
    """

    def __init__(self, feed: SnapshotFeed) -> None:
        self._feed = feed
        self._news = threading.Event()
        self._news.set()
        self._seen: Snapshot | None = None
        self._closed = False

    def notify(self) -> None:
        """Say that there is something new."""
        self._news.set()

    def next(self, timeout: float | None = None) -> Snapshot | None:
        """Wait for a version that was not given yet.

        Args:
            timeout: seconds to wait; None: for ever.

        Returns:
            The newest version; None when the time is over or the subscription closed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._news.wait(None if until is None else until - time.monotonic()):
            if self._closed:
                return None
            # First: what is published from now on sets it again.
            self._news.clear()
            newest = self._feed.newest
            if newest is not self._seen:
                self._seen = newest
                return newest
        return None

    def close(self) -> None:
        """End the subscription; `next` returns None from now on."""
        self._closed = True
        self._feed.unsubscribe(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
