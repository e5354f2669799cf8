"""How long a group commit is delayed so that more writes can join it."""

from __future__ import annotations

import time

DELAY_MAX_SECONDS = 0.005  # seconds of delay
SLOW_COMMIT_SECONDS = 0.005  # seconds that a commit takes on a slow disk


class CommitDelay:
    """A policy, as PostgreSQL's commit_delay and commit_siblings are, measured instead of set.

    After it answers a batch, the writer waits for the next writes of the clients that it answered.
    For each it waits no longer than one commit takes: one commit is all that the delay saves. In
    all it waits `most` seconds at most. On a slow disk there is no delay: writes pile up during the
    commit before.

    Args:
        max_seconds: seconds of delay.
        slow_seconds: seconds that a commit takes on a disk that counts as slow.
    """

    def __init__(
        self, max_seconds: float = DELAY_MAX_SECONDS, slow_seconds: float = SLOW_COMMIT_SECONDS
    ) -> None:
        self._max_seconds = max_seconds
        self._slow_seconds = slow_seconds
        self.siblings = 0  # writes that the next commit may have; guarded by the queue's lock
        self.commit_seconds = 0.0  # the last commit took; set by the thread that commits

    @property
    def is_disk_slow(self) -> bool:
        """Return whether commits take so long that it is worth to compute on meanwhile."""
        return self.commit_seconds > self._slow_seconds

    def expects_more(self, before: int, there: int) -> bool:
        """Return whether another write may come soon.

        Args:
            before: writes that were there when the last wait began.
            there: writes that are there now.
        """
        return before < there < self.siblings

    def remaining_seconds(self, since: float) -> float:
        """Return how long to wait for another write; 0 or less: not at all.

        Args:
            since: when the delay began, on time.monotonic's clock.
        """
        if self.is_disk_slow:
            return 0.0
        return min(self.commit_seconds, since + self._max_seconds - time.monotonic())
