"""A pending write, and the subscriptions of callers and watchers to its results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeVar

from mnist37.kernels import Flag
from mnist37_server.domain.commands.commands import Request
from mnist37_server.domain.results import Result

UNREAD_MAX = 10_000  # results that wait for a slow reader; after that it misses the oldest
COALESCED_MAX = 256  # results in one list, so that one message stays short and quick to send

ResultT = TypeVar("ResultT", bound=Result)


class Subscription:
    """A subscription to the results of one write; iterate over it for the committed results.

    One thread reads it. The queue puts results under its lock. Any thread may end it: the first
    call of `end` counts, and later calls do nothing.

    Args:
        deadline: when the caller stops waiting, on time.monotonic's clock; None for no deadline.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._results: SimpleQueue[Result | None] = SimpleQueue()  # None marks the end
        self._end_lock = threading.Lock()  # acquired by the first `end`, and never released
        self._error: BaseException | None = None  # written before the end mark, read after it

    def __iter__(self) -> Iterator[Result]:
        """Yield each result as it is committed; at the end raise the write's error, if any."""
        for results in self.coalesced():
            yield from results

    def coalesced(self) -> Iterator[list[Result]]:
        """Yield lists of all results that are ready; at the end raise the write's error, if any.

        A list has 1 to COALESCED_MAX results.
        """
        is_over = False
        while not is_over:
            results = []
            result = self._results.get()
            while result is not None:
                results.append(result)
                if self._results.empty() or len(results) == COALESCED_MAX:
                    break
                result = self._results.get()
            is_over = result is None
            if results:
                yield results
        if self._error is not None:
            raise self._error

    def only(self, kind: type[ResultT]) -> ResultT:
        """Wait for the single result of a write and return it, or raise the write's error.

        Args:
            kind: the type of the result.
        """
        result = self._results.get()
        if result is None:
            assert self._error is not None
            raise self._error
        assert isinstance(result, kind)
        return result

    def put(self, *results: Result) -> None:
        """Add results; if the reader is too far behind, drop the oldest ones."""
        for result in results:
            if self._results.qsize() >= UNREAD_MAX:
                with suppress(Empty):
                    self._results.get_nowait()
            self._results.put(result)

    def end(self, *last: Result, error: BaseException | None = None) -> None:
        """End the subscription with these last results and this error, unless it has ended."""
        if self._end_lock.acquire(blocking=False):
            self._error = error
            for result in (*last, None):
                self._results.put(result)

    @property
    def has_ended(self) -> bool:
        """Return whether `end` was called: the write is over, or the caller has cancelled."""
        return self._end_lock.locked()

    @property
    def is_waiting(self) -> bool:
        """Return whether the caller still waits: no `end` yet, and its deadline has not passed."""
        if self._end_lock.locked():
            return False
        return self._deadline is None or time.monotonic() < self._deadline


@dataclass(eq=False)
class PendingWrite:
    """A write from its arrival to its end, with the callers that wait for it.

    It is in the queue, or the writer has it, or it is in a commit batch.
    """

    # guarded by WriteQueue._lock: callers, watchers, run, stop; `has_callers` reads without it
    request: Request
    request_id: str | None
    fingerprint: bytes
    callers: list[Subscription] = field(default_factory=list)
    watchers: list[Subscription] = field(default_factory=list)  # they do not keep a run going
    run: int | None = None  # the number of the run, once it is under way
    stop: Flag | None = None  # the stop flag of the run, once it is under way

    @property
    def has_callers(self) -> bool:
        """Return whether any caller still waits."""
        for caller in tuple(self.callers):  # noqa: SIM110 - a generator costs more, at each Step
            if caller.is_waiting:
                return True
        return False
