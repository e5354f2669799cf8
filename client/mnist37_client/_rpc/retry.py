"""When a call that failed is made again, and how long to wait before; for both clients."""

from __future__ import annotations

import random
import time

from mnist37_client.errors import Mnist37Error, Unavailable

PAUSE_MIN_SECONDS = 0.05  # seconds; doubled at each attempt
PAUSE_MAX_SECONDS = 1.0


class RetryPolicy:
    """Lives through a restart of the server, once there was one to talk to.

    Args:
        retry_for: seconds for which a call that finds nobody is tried again.
    """

    def __init__(self, retry_for: float) -> None:
        self.retry_for = retry_for
        self.connected = False  # an address where nobody ever answered is more likely a mistake

    def attempts(self) -> RetryAttempts:
        """For a new call."""
        return RetryAttempts(self)


class RetryAttempts:
    """Those of one call."""

    def __init__(self, patience: RetryPolicy) -> None:
        self._patience = patience
        self._pause = PAUSE_MIN_SECONDS
        self._give_up = time.monotonic() + patience.retry_for

    def succeeded(self) -> None:
        """The server answered: whatever fails from now on is a new failure."""
        self._patience.connected = True
        self._pause = PAUSE_MIN_SECONDS
        self._give_up = time.monotonic() + self._patience.retry_for

    def next_pause(self, error: Mnist37Error) -> float:
        """How many seconds to wait before the next attempt.

        Raises:
            Mnist37Error: the error itself, where another attempt would not help or time is up.
        """
        # At least as long as the server asked for; and so that many clients do not come at once.
        pause = max(self._pause, 2 * (error.retry_after or 0)) * random.uniform(0.5, 1)
        late = time.monotonic() + pause > self._give_up
        if not isinstance(error, Unavailable) or not self._patience.connected or late:
            raise error
        self._pause = min(2 * self._pause, PAUSE_MAX_SECONDS)
        return pause
