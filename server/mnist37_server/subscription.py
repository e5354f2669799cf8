"""A write on its way, and those who wait for its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeVar

from mnist37_server.requests import Answer, Request

MAX_UNREAD = 10_000  # epochs that a slow reader may be behind before it misses the oldest
# Seconds between two answers that are there already (of epochs that were committed together), while
# they are few and the write goes on: predictions get in between, and need not wait for all of them.
PAUSE = 0.0005
FEW_UNREAD = 32

A = TypeVar("A", bound=Answer)


class Subscription:
    """One caller's view of a write: iterate over it for the answers as they are committed."""

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline  # on time.monotonic's clock
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()  # None: there are no more
        self._once = threading.Lock()  # taken by whoever ends it
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[Answer]:
        """Gives each answer; raises what the write failed with."""
        while (answer := self._answers.get()) is not None:
            yield answer
            if 0 < self._answers.qsize() <= FEW_UNREAD and not self._once.locked():
                time.sleep(PAUSE)
        if self._error is not None:
            raise self._error

    def only(self, kind: type[A]) -> A:
        """The answer of a write that has just one."""
        (answer,) = self
        assert isinstance(answer, kind)
        return answer

    def put(self, *answers: Answer) -> None:
        """Hands the caller answers; for the one thread that commits."""
        for answer in answers:
            if self._answers.qsize() >= MAX_UNREAD:
                with suppress(Empty):
                    self._answers.get_nowait()
            self._answers.put(answer)

    def end(self, *last: Answer, error: BaseException | None = None) -> None:
        """Hands the caller the last answers, and says that no more will come."""
        if self._once.acquire(blocking=False):
            self._error = error
            for answer in (*last, None):
                self._answers.put(answer)

    @property
    def waits(self) -> bool:
        """Whether somebody still wants the answers."""
        if self._once.locked():
            return False
        return self._deadline is None or time.monotonic() < self._deadline


@dataclass(eq=False)
class Write:
    """A request on its way, and the callers that wait for it."""

    request: Request
    request_id: str | None
    fingerprint: bytes
    callers: list[Subscription] = field(default_factory=list)
    watchers: list[Subscription] = field(default_factory=list)  # who do not keep it going
    run: int | None = None  # its number, once it is under way as a run

    @property
    def wanted(self) -> bool:
        """Whether any caller still waits."""
        for caller in tuple(self.callers):  # noqa: SIM110 - a generator costs more, at each Step
            if caller.waits:
                return True
        return False
