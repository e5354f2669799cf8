"""A limit on the number of open streams."""

from __future__ import annotations

import threading

from mnist37_server.errors import Exhausted, Reason


class StreamLimit:
    """A context manager that admits a fixed number of streams and refuses more at once.

    Args:
        size: how many streams may be open at a time.
        kind: what the streams are called in the text of the refusal, in the plural.
    """

    def __init__(self, size: int, kind: str) -> None:
        self._free = threading.BoundedSemaphore(size)
        self._refusal = f"{size} {kind} are open already; try again later"

    def __enter__(self) -> None:
        """Raise Exhausted if the limit is reached."""
        if not self._free.acquire(blocking=False):
            raise Exhausted(self._refusal, Reason.TOO_MANY_STREAMS)

    def __exit__(self, *_: object) -> None:
        self._free.release()
