"""The feed of committed versions: the newest one for readers, and each new one for subscribers.

A subscriber is code that must react to commits and not only read now and then: for example, a copy
of the model in another process, or a page that shows it.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from mnist37_server.domain.position import Lineage
from mnist37_server.domain.route import AT_THE_OWNER, Route
from mnist37_server.domain.snapshot import Snapshot


class View(NamedTuple):
    """The newest version that a server has, and how good its knowledge is at this moment."""

    snapshot: Snapshot
    lineage: Lineage
    age: float = 0.0  # seconds since it certainly was the owner's newest version
    is_heard: bool = True  # whether the owner is heard
    route: Route = AT_THE_OWNER


class SnapshotFeed:
    """A holder of the newest committed version, which wakes its subscribers at each new one.

    Readers take `current` without a lock: it is one reference to a tuple of immutable values.

    Args:
        newest: the newest committed version.
        lineage: the history in which it is.
    """

    def __init__(self, newest: Snapshot, lineage: Lineage) -> None:
        # Replaced by the thread that publishes, read by any. One tuple, so that a reader never
        # takes the version of one history for that of another.
        self.current = newest, lineage
        # guarded by _lock: the replacement of _subscribers; `publish` reads it without the lock
        self._lock = threading.Lock()
        self._subscribers: tuple[FeedSubscriber, ...] = ()

    @property
    def newest(self) -> Snapshot:
        """Return the newest committed version."""
        return self.current[0]

    def view(self) -> View:
        """Return what the owner of the model sends to its followers."""
        return View(*self.current)

    def publish(self, snapshot: Snapshot, lineage: Lineage | None = None) -> None:
        """Make a committed version the newest one, and wake the subscribers without a wait.

        For the thread that commits, after the commit and before the callers are answered.

        Args:
            snapshot: the version.
            lineage: the history in which it is; None means that of the version before.
        """
        self.current = snapshot, lineage or self.current[1]
        for subscriber in self._subscribers:
            subscriber.notify()

    def confirm(self) -> None:
        """Wake the subscribers: the newest version is the same, but more is known about it."""
        for subscriber in self._subscribers:
            subscriber.confirm()

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
        self._previous: Snapshot | None = None  # what `next` returned last
        self._pending_since = 0.0  # when the first version came that `next` has not returned
        self._is_confirmed = False  # whether `next` is to return, though there is no new version
        self._is_closed = False
        self.notify()

    @property
    def is_closed(self) -> bool:
        """Return whether the subscription has ended."""
        return self._is_closed

    def pending_seconds(self) -> float:
        """Return for how long there has been a version that `next` has not returned; or 0."""
        if not self._wake_event.is_set() or self._feed.newest is self._previous:
            return 0.0
        return time.monotonic() - self._pending_since

    def notify(self) -> None:
        """Wake `next`; any thread may call it."""
        # The feed has its new version already, so a subscriber that is awake will see it.
        if not self._wake_event.is_set():
            self._pending_since = time.monotonic()
            self._wake_event.set()

    def confirm(self) -> None:
        """Have `next` return the newest version once more; any thread may call it."""
        self._is_confirmed = True
        self.notify()

    def skip(self, snapshot: Snapshot) -> None:
        """Note that the reader has this version already; for the thread that calls `next`."""
        self._previous = snapshot

    def next(self, timeout: float | None = None) -> Snapshot | None:
        """Wait for a version that this subscriber has not got yet, or for `confirm`.

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
            is_confirmed, self._is_confirmed = self._is_confirmed, False
            newest = self._feed.newest
            if newest is not self._previous or is_confirmed:
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
