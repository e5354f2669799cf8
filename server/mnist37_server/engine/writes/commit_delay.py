"""A policy for the delay of group commits, so that more writes can join them."""

from __future__ import annotations

import time

DELAY_MAX_SECONDS = 0.005  # in all, before one commit
SLOW_COMMIT_SECONDS = 0.005  # a disk on which a commit takes longer counts as slow


class CommitDelay:
    """A policy for group commit, with a delay that follows the measured time of a commit.

    PostgreSQL has the same policy with two fixed settings, commit_delay and commit_siblings.

    After it answers a batch, the writer waits for the next writes of the clients that it answered.
    It waits for each no longer than one commit takes, since one commit is all that the delay can
    save. In all it waits at most `max_seconds`. On a slow disk there is no delay, since writes
    accumulate during the commit before anyway.

    Args:
        max_seconds: the longest delay of one commit.
        slow_seconds: a disk on which a commit takes longer counts as slow.
    """

    def __init__(
        self, max_seconds: float = DELAY_MAX_SECONDS, slow_seconds: float = SLOW_COMMIT_SECONDS
    ) -> None:
        self._max_seconds = max_seconds
        self._slow_seconds = slow_seconds
        # guarded by WriteQueue._lock: siblings
        self.siblings = 0  # how many writes the next commit may have; 0: do not wait
        # Set by the thread that commits, read by any.
        self.commit_seconds = 0.0  # how long the last commit took

    @property
    def is_disk_slow(self) -> bool:
        """Return whether a commit takes so long that the writer should compute during it."""
        return self.commit_seconds > self._slow_seconds

    def expects_more(self, previous_count: int, count: int) -> bool:
        """Return whether another write may come soon.

        Args:
            previous_count: writes in the queue when the last wait started.
            count: writes in the queue now.
        """
        return previous_count < count < self.siblings

    def remaining_seconds(self, start_time: float) -> float:
        """Return how long to wait for another write; 0 or less means not at all.

        Args:
            start_time: when the delay started, on time.monotonic's clock.
        """
        if self.is_disk_slow:
            return 0.0
        return min(self.commit_seconds, start_time + self._max_seconds - time.monotonic())
