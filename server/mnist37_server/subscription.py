"""A write on its way, and those who wait for its answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from mnist37_server.requests import Answer, Request

MAX_UNREAD = 10_000  # epochs that a slow reader may be behind before it misses the oldest

A = TypeVar("A", bound=Answer)


class Subscription:
    """One caller's view of a write: iterate over it for the answers as they are committed."""

    def __init__(self, deadline: float | None = None) -> None:
        self._deadline = deadline  # on time.monotonic's clock
        self._answers: deque[Answer] = deque(maxlen=MAX_UNREAD)
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Answer]:
        """Gives each answer; raises what the write failed with."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._answers or self._ended)
                if not self._answers:
                    break
                answer = self._answers.popleft()
            yield answer
        if self._error is not None:
            raise self._error

    def only(self, kind: type[A]) -> A:
        """The answer of a write that has just one."""
        (answer,) = self
        assert isinstance(answer, kind)
        return answer

    def put(self, *answers: Answer) -> None:
        """Hands the caller answers."""
        with self._changed:
            self._answers.extend(answers)
            self._changed.notify()

    def end(self, *last: Answer, error: BaseException | None = None) -> None:
        """Hands the caller the last answers, and says that no more will come."""
        with self._changed:
            if not self._ended:
                self._answers.extend(last)
                self._ended, self._error = True, error
                self._changed.notify()

    @property
    def waits(self) -> bool:
        """Whether somebody still wants the answers."""
        return not self._ended and (self._deadline is None or time.monotonic() < self._deadline)


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
        return any(caller.waits for caller in tuple(self.callers))
