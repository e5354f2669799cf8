"""The thread pool for calls that wait, and what both kinds of thread pools share."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import ParamSpec

# A thread without a call for this long ends if it is superfluous: a burst starts hundreds.
IDLE_THREAD_SECONDS = 10.0

P = ParamSpec("P")

log = logging.getLogger(__name__)


def assign_pool(pool: ThreadPoolExecutor, servicer: object, methods: Iterable[str]) -> None:
    """Make these methods of a servicer run on a pool instead of the server's own threads."""
    for name in methods:
        # grpcio looks for this attribute on a handler; its own health service relies on it.
        getattr(servicer, name).__func__.experimental_thread_pool = pool


class CompletionHandle:
    """The part of a Future that grpcio uses: a callback at the end of a call.

    A complete Future takes 4 us to create and to resolve.

    Attributes:
        is_deferred: whether something else than the pool completes it.
    """

    def __init__(self) -> None:
        self.is_deferred = False
        self._is_complete = False
        # The callbacks that have not been called yet.
        self._callbacks: list[Callable[[CompletionHandle], object]] = []

    def add_done_callback(self, callback: Callable[[CompletionHandle], object]) -> None:
        """Call the callback when the call ends, or at once if it has ended."""
        self._callbacks.append(callback)
        if self._is_complete:
            self.complete()

    def complete(self) -> None:
        """Record that the call has ended, and run the callbacks."""
        self._is_complete = True
        while True:
            try:
                # pop is atomic: of two threads that run this, only one gets a callback.
                callback = self._callbacks.pop()
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                log.exception("grpcio's callback at the end of a call failed")


Call = tuple[Callable[[], object], CompletionHandle]

_current = threading.local()  # handle: of the call that the thread runs


def defer_to_wakers() -> None:
    """Keep the calling thread from preempting the thread that wakes it.

    The thread that wakes it belongs to this process and holds Python's lock. A thread that preempts
    it can only wait for that lock. On few cores this is every other switch of threads, and a tenth
    of the cost of a call. The function sets Linux's SCHED_BATCH. It does nothing on other systems,
    and nothing where the operator has chosen a scheduling policy for the process.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid the call
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def run_call(call: Callable[[], object], handle: CompletionHandle) -> None:
    """Run a call of grpcio's and complete its handle; log what it raises, which is a fault."""
    _current.handle = handle
    try:
        call()
    except BaseException:
        log.exception("a call raised an error that grpcio did not catch")
    _current.handle = None  # an idle thread keeps nothing of its last call
    if not handle.is_deferred:
        handle.complete()


def defer_completion() -> CompletionHandle | None:
    """Return the handle of the call that this thread runs, for the caller to complete.

    Until then grpcio counts the call. On a thread of another kind of pool there is no handle.
    """
    handle: CompletionHandle | None = getattr(_current, "handle", None)
    if handle is not None:
        handle.is_deferred = True
    return handle


class LifoThreadPool(ThreadPoolExecutor):
    """A bounded thread pool that gives a call to the thread that became idle last.

    The stack of that thread is still in the processor's caches. Python's own executor uses its
    threads in turn. With 16 callers a Step takes 7 % less of the server's core here.

    grpcio requires a ThreadPoolExecutor, but uses only `submit`.

    Args:
        limit: the most threads that it starts; more calls wait for a thread.
        name: the prefix of the threads' names.
    """

    def __init__(self, limit: int, name: str) -> None:
        super().__init__(limit, name)
        self._limit = limit
        self._name = name
        # guarded by _lock: _thread_count, _idle, _calls
        self._lock = threading.Lock()
        self._thread_count = 0
        self._idle: list[SimpleQueue[Call]] = []  # the inboxes of the idle threads
        self._calls: deque[Call] = deque()  # that wait for a thread
        # submit runs in grpcio's one serving thread, which an error would end. So there is always a
        # thread, and submit need not fail where the system has no more.
        self._add_thread()

    def submit(  # type: ignore[override]  # grpcio needs no more of a Future than this
        self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> CompletionHandle:
        """Call fn(*args, **kwargs) on one of the threads, and log what it raises."""
        call = partial(fn, *args, **kwargs), CompletionHandle()
        with self._lock:
            if not self._idle and self._thread_count < self._limit:
                self._add_thread()
            if self._idle:
                self._idle.pop().put(call)
            else:
                self._calls.append(call)
        return call[1]

    def _add_thread(self) -> None:
        inbox: SimpleQueue[Call] = SimpleQueue()
        name = f"{self._name}-{self._thread_count + 1}"
        thread = threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            if not self._thread_count:
                raise
            log.error("%d threads, and %s: calls wait", self._thread_count, error)
            return
        self._thread_count += 1
        self._idle.append(inbox)

    def _work(self, inbox: SimpleQueue[Call]) -> None:
        defer_to_wakers()
        while True:
            try:
                call, handle = inbox.get(timeout=IDLE_THREAD_SECONDS)
            except Empty:
                if self._exit_if_idle(inbox):
                    return
                continue
            run_call(call, handle)
            del call  # which refers to the call's messages
            with self._lock:
                if self._calls:
                    inbox.put(self._calls.popleft())
                else:
                    self._idle.append(inbox)

    def _exit_if_idle(self, inbox: SimpleQueue[Call]) -> bool:
        """Take a thread out of the pool if it is idle and not the last one."""
        with self._lock:
            if inbox not in self._idle or self._thread_count == 1:
                return False  # a call has just come, or there must be a thread
            self._idle.remove(inbox)
            self._thread_count -= 1
            return True
