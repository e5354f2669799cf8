"""Retries of failed calls for both clients: when, and after which pause."""

from __future__ import annotations

import random
import time

from mnist37_client._rpc.methods.seconds import check_retry_for
from mnist37_client.errors import Mnist37Error, Unavailable

PAUSE_MIN_SECONDS = 0.05  # doubled at each attempt
PAUSE_MAX_SECONDS = 1.0


def is_temporary(error: Mnist37Error) -> bool:
    """Return whether the same call may succeed in a moment."""
    # TOO_MANY_RPCS: the server refused the call unread, and has room again in a moment.
    return isinstance(error, Unavailable) or error.reason == "TOO_MANY_RPCS"


class RetryPolicy:
    """A rule for retries that lets a client survive a restart of the server.

    Args:
        retry_for: seconds for which a call is retried when the server is away.
    """

    def __init__(self, retry_for: float) -> None:
        self.retry_for = check_retry_for(retry_for)
        # No retry before the first answer: the address is more likely wrong than the server away.
        self.connected = False

    def attempts(self) -> RetryAttempts:
        """Return the attempts of a new call."""
        return RetryAttempts(self)


class RetryAttempts:
    """The attempts of one call."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._pause = PAUSE_MIN_SECONDS
        # Of the retries, since the first failure: a stream may be silent for long before it.
        self._deadline: float | None = None

    def record_success(self) -> None:
        """Record an answer of the server: a later failure has a new pause and a new deadline."""
        self._policy.connected = True
        self._pause = PAUSE_MIN_SECONDS
        self._deadline = None

    def next_pause(self, error: Mnist37Error) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            Mnist37Error: the error itself, if another attempt would not help or the time is up.
        """
        # At least as long as the server asked for; random, so that clients spread their retries.
        pause = max(self._pause, 2 * (error.retry_after or 0)) * random.uniform(0.5, 1)
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._policy.retry_for
        is_late = now + pause > self._deadline
        if not is_temporary(error) or not self._policy.connected or is_late:
            raise error
        self._pause = min(2 * self._pause, PAUSE_MAX_SECONDS)
        return pause
