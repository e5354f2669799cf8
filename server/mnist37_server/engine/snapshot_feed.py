"""The feed of committed versions: the newest one for readers, and each new one for subscribers.

A subscriber is code that must react to commits and not only read now and then: for example, a copy
of the model in another process, or a page that shows it.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from mnist37_server.domain.snapshot import Snapshot


class SnapshotFeed:
    """A holder of the newest committed version, which wakes its subscribers at each new one.

    Readers take `newest` without a lock: it is one reference to an immutable value.

    Args:
        newest: the newest committed version.
    """

    def __init__(self, newest: Snapshot) -> None:
        self.newest = newest  # replaced by the thread that commits, read by any
        # guarded by _lock: the replacement of _subscribers; `publish` reads it without the lock
        self._lock = threading.Lock()
        self._subscribers: tuple[FeedSubscriber, ...] = ()

    def publish(self, snapshot: Snapshot) -> None:
        """Make a committed version the newest one, and wake the subscribers without a wait.

        For the thread that commits, after the commit and before the callers are answered.
        """
        self.newest = snapshot
        for subscriber in self._subscribers:
            subscriber.notify()

    def subscribe(self) -> FeedSubscriber:
        """Return a new subscriber; the first version that it gets is the newest one."""
        subscriber = FeedSubscriber(self)
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
        return subscriber

    def unsubscribe(self, subscriber: FeedSubscriber) -> None:
        """Remove a subscriber, and wake it."""
        with self._lock:
            self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
        subscriber.notify()


class FeedSubscriber:
    """A subscriber to a feed, which always gets the newest version and may miss others.

    The versions that it gets only ever rise. Use it in one thread; any thread may close it.
    """

    def __init__(self, feed: SnapshotFeed) -> None:
        self._feed = feed
        self._wake_event = threading.Event()
        self._wake_event.set()
        self._previous: Snapshot | None = None  # what `next` returned last
        self._is_closed = False

    def notify(self) -> None:
        """Wake `next`; any thread may call it."""
        self._wake_event.set()

    def next(self, timeout: float | None = None) -> Snapshot | None:
        """Wait for a version that this subscriber has not got yet.

        Args:
            timeout: seconds to wait; None means no limit.

        Returns:
            The newest version; None after the timeout or after `close`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._wake_event.wait(None if deadline is None else deadline - time.monotonic()):
            if self._is_closed:
                return None
            # Clear it before the read: a version that is published from now on sets it again.
            self._wake_event.clear()
            newest = self._feed.newest
            if newest is not self._previous:
                self._previous = newest
                return newest
        return None

    def close(self) -> None:
        """End the subscription; `next` returns None from now on."""
        self._is_closed = True
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
