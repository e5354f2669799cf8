"""A count of the calls in progress, so that the shutdown of the server can wait for them."""

from __future__ import annotations

import threading
import time


class InFlightCalls:
    """A context manager that counts calls in progress, and can wait until there are none.

    The calls are reads and writes. Streams that wait for a caller or for a run are not counted.
    """

    # No call starts or ends for this long: no more calls come, and the last answer has been sent.
    PAUSE_SECONDS = 0.1

    def __init__(self) -> None:
        # guarded by _lock: increments of _starts and _ends
        self._lock = threading.Lock()
        self._starts = self._ends = 0

    def __enter__(self) -> None:
        with self._lock:
            self._starts += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ends += 1

    def wait_until_idle(self, timeout: float, hurry: threading.Event) -> None:
        """Wait for PAUSE_SECONDS without a call, or for `timeout` seconds, or for `hurry`."""
        deadline = time.monotonic() + timeout
        counts = -1, -1
        while time.monotonic() < deadline and not hurry.is_set():
            previous, counts = counts, (self._starts, self._ends)
            if previous == counts and self._starts == self._ends:
                return
            hurry.wait(min(self.PAUSE_SECONDS, timeout))
