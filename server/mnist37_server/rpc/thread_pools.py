"""Keeps whoever waits out of the others' way: bounded in number, and on threads of their own."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec

# Few threads answer many short calls faster than many threads do: they are not in each other's way.
# Whoever waits (for a write, for a stream's next message, for a loss over thousands of images) has
# threads of their own, as many as there may be calls, so that waiting never uses up the short
# calls', and whoever is slow to send a message is in nobody's way.
SHORT_CALL_THREADS = 4
BLOCKED_AFTER_SECONDS = (
    0.05  # seconds for which a call may wait while none begins, until it gets a thread
)

P = ParamSpec("P")

log = logging.getLogger(__name__)


def assign_pool(pool: ThreadPoolExecutor, servicer: object, methods: Iterable[str]) -> None:
    """Has these methods of a servicer run on a pool instead of the server's own threads."""
    for name in methods:
        # grpcio looks for this attribute on a handler; its own health service relies on it.
        getattr(servicer, name).__func__.experimental_thread_pool = pool


class CompletionHandle:
    """What grpcio wants of a Future, to be told that a call is over; a whole one takes 4 us."""

    def __init__(self) -> None:
        self._over = False
        self._callbacks: list[Callable[[CompletionHandle], object]] = []  # not called yet

    def add_done_callback(self, callback: Callable[[CompletionHandle], object]) -> None:
        """Has it called at the end; at once where that has come."""
        self._callbacks.append(callback)
        if self._over:
            self.complete()

    def complete(self) -> None:
        """The call is over."""
        self._over = True
        while True:
            try:
                # Whoever takes one out calls it: of two threads that are here only one gets it.
                callback = self._callbacks.pop()
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                log.exception("grpcio could not be told of a call's end")


Call = tuple[Callable[[], object], CompletionHandle]


def defer_to_wakers() -> None:
    """Keeps the calling thread from taking the core of whoever wakes it.

    That is another thread of this process, which holds Python's lock: it would be pushed aside for
    one that can but wait for it. On few cores that is every other switch of threads, and a tenth of
    what a call costs. Only Linux can be asked, and only where nobody has chosen how the process is
    to be scheduled.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def run_call(call: Callable[[], object], handle: CompletionHandle) -> None:
    """Does a call of grpcio's; what it raises is logged, for it should raise nothing."""
    try:
        call()
    except BaseException:
        log.exception("a call failed where grpcio should have seen to it")
    handle.complete()


class LifoThreadPool(ThreadPoolExecutor):
    """A thread for each call that waits, up to so many; the one that became idle last is the next.

    Its stack is still in the processor's caches, where Python's own executor lets all threads take
    turns: with 16 callers a Step takes 7 % less of the server's core.

    For grpcio it must be a ThreadPoolExecutor, but that submits is all that it asks of one.

    Args:
        limit: threads; more calls wait for one of them.
        name: what the threads' names begin with.
    """

    def __init__(self, limit: int, name: str) -> None:
        super().__init__(limit, name)
        self._limit = limit
        self._name = name
        self._running = 0  # threads
        self._idle: list[SimpleQueue[Call]] = []  # of each idle thread, where it waits
        self._calls: deque[Call] = deque()  # that wait for a thread
        self._lock = threading.Lock()  # guards the three above

    def submit(  # type: ignore[override]  # an Ending is as much of a Future as is wanted
        self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> CompletionHandle:
        """Calls fn(*args, **kwargs) on one of the threads; what it raises is logged."""
        call = partial(fn, *args, **kwargs), CompletionHandle()
        with self._lock:
            if not self._idle and self._running < self._limit:
                self._add_thread()
            if self._idle:
                self._idle.pop().put(call)
            else:
                self._calls.append(call)
        return call[1]

    def _add_thread(self) -> None:
        mine: SimpleQueue[Call] = SimpleQueue()
        name = f"{self._name}-{self._running + 1}"
        thread = threading.Thread(target=self._work, args=(mine,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more
            if not self._running:
                raise
            log.exception("%d threads, and no more are to be had: calls wait", self._running)
            return
        self._running += 1
        self._idle.append(mine)

    def _work(self, mine: SimpleQueue[Call]) -> None:
        defer_to_wakers()
        while True:
            call, handle = mine.get()
            run_call(call, handle)
            del call  # it holds the call's messages
            with self._lock:
                if self._calls:
                    mine.put(self._calls.popleft())
                else:
                    self._idle.append(mine)


class ElasticThreadPool:
    """As few threads as short calls are quickest on, and more only while those are held up.

    grpcio gives a call its thread before the call's message is there. So whoever is slow to send
    one holds a thread, and as many as there are threads would hold up everybody. A thread that is
    long about its call therefore counts no more.

    For grpcio it is an executor: that submits is all that it asks of one.

    Args:
        threads: how many there are beside those that are held up.
        name: what their names begin with.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._target = threads
        self._name = name
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._submitted = threading.Event()
        self._begun = 0  # calls; only whether it moves counts
        self._busy_since: dict[
            int, float
        ] = {}  # since when, by the thread; those without a call are not
        self._blocked = 0  # threads, when they were last counted
        self._threads = 0
        self._lock = threading.Lock()  # guards the number of threads
        for _ in range(threads):
            self._add_thread()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def submit(
        self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> CompletionHandle:
        """Calls fn(*args, **kwargs) on one of the threads; what it raises is logged."""
        handle = CompletionHandle()
        self._calls.put((partial(fn, *args, **kwargs), handle))
        if not self._submitted.is_set():
            self._submitted.set()
        return handle

    def _add_thread(self) -> None:
        """Raises RuntimeError where the system has no more."""
        with self._lock:
            name = f"{self._name}-{self._threads + 1}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        defer_to_wakers()
        thread = threading.get_ident()
        while not self._should_exit():
            call, handle = self._calls.get()
            self._begun += 1
            self._busy_since[thread] = time.monotonic()
            run_call(call, handle)
            del call  # it holds the call's messages
            del self._busy_since[thread]

    def _should_exit(self) -> bool:
        if self._threads - self._blocked <= self._target or not self._calls.empty():
            return False
        with self._lock:
            if self._threads - self._blocked <= self._target:
                return False
            self._threads -= 1
            return True

    def _watch(self) -> None:
        """Counts who is held up, and adds threads whenever calls wait and none has begun.

        Twice as many each time, since all of those that wait may be silent too. What the system
        has none for now, it may have in a moment.
        """
        scarce = False
        while True:
            self._submitted.wait()
            begun = self._begun
            time.sleep(BLOCKED_AFTER_SECONDS)
            self._submitted.clear()
            early = time.monotonic() - BLOCKED_AFTER_SECONDS
            self._blocked = sum(since < early for since in self._busy_since.copy().values())
            waiting = self._calls.qsize()
            if not waiting:
                continue
            self._submitted.set()
            if self._begun == begun:
                missing = self._target - (self._threads - self._blocked)
                try:
                    for _ in range(max(missing, min(waiting, self._threads))):
                        self._add_thread()
                    scarce = False
                except RuntimeError as error:
                    if not scarce:  # once, and not 20 times a second
                        log.error("%d threads, and %s: calls wait", self._threads, error)
                    scarce = True
