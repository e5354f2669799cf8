"""The lanes of the write queue: the writes that wait for the same thread, in order of arrival.

A lane has no lock of its own: it uses the write queue's, which is held during every call. While a
lane waits, it releases the lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from mnist37_server.domain.commands.commands import Restore
from mnist37_server.domain.commands.train import Train
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.engine.writes.subscription import PendingWrite

EXCLUSIVE = (Train, Restore)  # taken alone: they need all writes before them committed
GROUP_MAX = 64  # small writes that are taken together, at most


class Lane:
    """Writes that one thread takes one by one.

    Args:
        lock: the write queue's lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        # guarded by lock: all fields
        self.writes: deque[PendingWrite] = deque()
        self.is_closed = False
        self._changed = threading.Condition(lock)  # its thread waits for writes or `close`

    def append(self, write: PendingWrite) -> None:
        """Append a write, and wake the thread that takes it."""
        self.writes.append(write)
        self._changed.notify()

    def close(self) -> None:
        """Let no further writes be taken, and wake the thread."""
        self.is_closed = True
        self._changed.notify()

    def take(self) -> list[PendingWrite]:
        """Wait for the next write and remove it; the list is empty when the lane is closed."""
        self._changed.wait_for(lambda: self.writes or self.is_closed)
        return [] if self.is_closed else [self.writes.popleft()]


class GroupLane(Lane):
    """Writes that one thread takes in groups, as far as they can share a commit.

    Args:
        lock: the write queue's lock.
        delay: the policy for waiting until more writes come.
    """

    def __init__(self, lock: threading.RLock, delay: CommitDelay) -> None:
        super().__init__(lock)
        self._delay = delay

    def append(self, write: PendingWrite) -> None:
        """Append a write, and wake the thread if it waits for no further one."""
        self.writes.append(write)
        is_expected = len(self.writes) in (1, self._delay.siblings)
        if is_expected or isinstance(write.request, EXCLUSIVE):
            self._changed.notify()

    def take(self) -> list[PendingWrite]:
        """Wait for the next writes and remove them; the list is empty when the lane is closed.

        Returns:
            Up to GROUP_MAX small writes, or one EXCLUSIVE write.
        """
        while not self._await_siblings() and not self.is_closed:
            self._changed.wait()
        self._delay.siblings = 0
        group: list[PendingWrite] = []
        while self.writes and len(group) < GROUP_MAX and not self.is_closed:
            if isinstance(self.writes[0].request, EXCLUSIVE):
                return group or [self.writes.popleft()]
            group.append(self.writes.popleft())
        return group

    def _await_siblings(self) -> bool:
        """Delay the next group for the next writes of the clients that were just answered.

        The delay goes on only while a write comes within each wait. Return whether there is one.
        """
        count, start_time = 0, time.monotonic()
        while self._delay.expects_more(count, len(self.writes)) and not self._must_not_wait():
            count = len(self.writes)
            self._changed.wait(self._delay.remaining_seconds(start_time))
        return bool(self.writes)

    def _must_not_wait(self) -> bool:
        """Return whether to take writes now: an EXCLUSIVE write gains nothing from a delay."""
        return self.is_closed or any(isinstance(w.request, EXCLUSIVE) for w in self.writes)
