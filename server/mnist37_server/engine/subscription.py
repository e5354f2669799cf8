"""A write on its way, and those who wait for its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeVar

from mnist37.kernels import Flag
from mnist37_server.domain.commands import Request
from mnist37_server.domain.results import Result

UNREAD_MAX = 10_000  # epochs that a slow reader may be behind before it misses the oldest
COALESCED_MAX = 256  # epochs, so that no message and nobody's turn gets long

A = TypeVar("A", bound=Result)


class Subscription:
    """One caller's view of a write: iterate over it for the answers as they are committed."""

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline  # on time.monotonic's clock
        self._results: SimpleQueue[Result | None] = SimpleQueue()  # None: there are no more
        self._once = threading.Lock()  # taken by whoever ends it
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[Result]:
        """Gives each answer; raises what the write failed with."""
        for results in self.coalesced():
            yield from results

    def coalesced(self) -> Iterator[list[Result]]:
        """The same, but gives answers at once that are there."""
        over = False
        while not over:
            results = []
            result = self._results.get()
            while result is not None:
                results.append(result)
                if self._results.empty() or len(results) == COALESCED_MAX:
                    break
                result = self._results.get()
            over = result is None
            if results:
                yield results
        if self._error is not None:
            raise self._error

    def only(self, kind: type[A]) -> A:
        """The answer of a write that has just one; raises what it failed with."""
        result = self._results.get()
        if result is None:
            assert self._error is not None
            raise self._error
        assert isinstance(result, kind)
        return result

    def put(self, *results: Result) -> None:
        """Hands the caller answers; for the one thread that commits."""
        for result in results:
            if self._results.qsize() >= UNREAD_MAX:
                with suppress(Empty):
                    self._results.get_nowait()
            self._results.put(result)

    def end(self, *last: Result, error: BaseException | None = None) -> None:
        """Hands the caller the last answers, and says that no more will come."""
        if self._once.acquire(blocking=False):
            self._error = error
            for result in (*last, None):
                self._results.put(result)

    @property
    def ended(self) -> bool:
        """Whether the caller has the last answers, or has left."""
        return self._once.locked()

    @property
    def is_waiting(self) -> bool:
        """Whether somebody still wants the answers."""
        if self._once.locked():
            return False
        return self._deadline is None or time.monotonic() < self._deadline


@dataclass(eq=False)
class PendingWrite:
    """A request on its way, and the callers that wait for it."""

    request: Request
    request_id: str | None
    fingerprint: bytes
    callers: list[Subscription] = field(default_factory=list)
    watchers: list[Subscription] = field(default_factory=list)  # who do not keep it going
    run: int | None = None  # its number, once it is under way as a run
    stop: Flag | None = None  # likewise: 1 while it shall make no further step

    @property
    def has_callers(self) -> bool:
        """Whether any caller still waits."""
        for caller in tuple(self.callers):  # noqa: SIM110 - a generator costs more, at each Step
            if caller.is_waiting:
                return True
        return False
