"""Keeps the number of open streams bounded."""

from __future__ import annotations

import threading

from mnist37_server.errors import Exhausted, Reason


class StreamLimit:
    """Room for so many streams at a time, entered by `with`; more are refused at once.

    Args:
        size: how many.
        of: of which kind, for the text of the refusal.
    """

    def __init__(self, size: int, of: str) -> None:
        self._free = threading.BoundedSemaphore(size)
        self._refusal = f"{size} {of} are open already; try again later"

    def __enter__(self) -> None:
        """Raises Exhausted where there is no room left."""
        if not self._free.acquire(blocking=False):
            raise Exhausted(self._refusal, Reason.TOO_MANY_STREAMS)

    def __exit__(self, *_: object) -> None:
        self._free.release()
