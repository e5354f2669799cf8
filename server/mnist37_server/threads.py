"""Keeps whoever waits out of the others' way: bounded in number, and on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mnist37_server.errors import Exhausted, Reason


class Room:
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


def run_on(pool: ThreadPoolExecutor, servicer: object, methods: Iterable[str]) -> None:
    """Has these methods of a servicer run on a pool instead of the server's own threads."""
    for name in methods:
        # grpcio looks for this attribute on a handler; its own health service relies on it.
        getattr(servicer, name).__func__.experimental_thread_pool = pool
