"""Counts the calls that are being answered, so that the end of the server waits for them."""

from __future__ import annotations

import threading
import time


class InFlightCalls:
    """Counts what is being answered, so that the last answers can be waited for.

    These are reads and writes, not streams that wait for a caller or a run.
    """

    PAUSE = 0.1  # seconds in which nothing begins or ends: there is no more, and the last is sent

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._ended = 0

    def __enter__(self) -> None:
        with self._lock:
            self._begun += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended += 1

    def wait_until_idle(self, timeout: float) -> None:
        """Returns when nothing is being answered, nor was for a moment, or in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        seen = -1, -1
        while time.monotonic() < deadline:
            before, seen = seen, (self._begun, self._ended)
            if before == seen and self._begun == self._ended:
                return
            time.sleep(min(self.PAUSE, timeout))
