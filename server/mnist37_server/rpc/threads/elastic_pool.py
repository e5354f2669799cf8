"""An executor whose blocked threads do not count, for calls that a slow client may block."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import ParamSpec

from mnist37_server.rpc.threads.thread_pools import (
    IDLE_THREAD_SECONDS,
    Call,
    CompletionHandle,
    defer_to_wakers,
    run_call,
)

# A few threads answer many short calls faster than many threads do, since fewer compete. Calls that
# wait (for a write, for a stream's next message, for a loss over thousands of images) run on pools
# with as many threads as there may be calls. So waiting calls never use up the threads of the short
# calls, and a client that sends a message slowly delays no other call.
SHORT_CALL_THREADS = 4
READ_THREADS = 4
PROBE_THREADS = 2
# A thread of ElasticThreadPool counts as blocked after this time on one call. If calls wait and no
# call starts for this time, the pool adds threads.
BLOCKED_AFTER_SECONDS = 0.05

P = ParamSpec("P")

log = logging.getLogger(__name__)

_current = threading.local()  # pool: the pool to which the thread belongs; never_waits


class MustWait(BaseException):
    """The end of a call on a thread that never waits; the call is to begin again on another one."""


def replace_waiting_thread() -> AbstractContextManager[None]:
    """Return a context in which the calling thread waits, and its pool has another one instead.

    Without it the pool notices only after 50 ms that the thread is blocked. On a thread of another
    kind of pool the context does nothing.

    Raises:
        MustWait: the thread is one that never waits.
    """
    if getattr(_current, "never_waits", False):
        raise MustWait
    pool: ElasticThreadPool | None = getattr(_current, "pool", None)
    return nullcontext() if pool is None else pool._replace_thread()


def never_wait() -> None:
    """Let the calling thread raise MustWait from now on where it would have to wait."""
    _current.never_waits = True


class ElasticThreadPool(ThreadPoolExecutor):
    """An executor with a small, fixed number of available threads.

    grpcio assigns a thread to a call before the call's message has arrived. So a client that sends
    its message slowly blocks a thread, and a few such clients could block all threads. A thread
    that works on one call for more than 50 ms therefore no longer counts, and the pool starts
    replacements while calls wait.

    grpcio requires a ThreadPoolExecutor, but uses only `submit`.

    Args:
        threads: how many threads are available, beside the blocked ones.
        name: the prefix of the threads' names.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)
        self._target = threads
        self._name = name
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._submitted = threading.Event()
        self._calls_started = 0  # without a lock: only whether it changes matters
        self._busy_since: dict[int, float] = {}  # when the call started, by busy thread
        self._blocked = 0  # how many threads were blocked at the last count
        # guarded by _lock: changes of _thread_count
        self._lock = threading.Lock()
        self._thread_count = 0
        for _ in range(threads):
            self._add_thread()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def submit(  # type: ignore[override]  # grpcio needs no more of a Future than this
        self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> CompletionHandle:
        """Call fn(*args, **kwargs) on one of the threads, and log what it raises."""
        handle = CompletionHandle()
        self._calls.put((partial(fn, *args, **kwargs), handle))
        if not self._submitted.is_set():
            self._submitted.set()
        return handle

    def _add_thread(self) -> None:
        """Start a thread, or raise RuntimeError if the system has no more."""
        with self._lock:
            name = f"{self._name}-{self._thread_count + 1}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
            self._thread_count += 1

    def _work(self) -> None:
        defer_to_wakers()
        _current.pool = self
        thread = threading.get_ident()
        while not self._should_exit():
            try:
                call, handle = self._calls.get(timeout=IDLE_THREAD_SECONDS)
            except Empty:
                continue  # the thread may be superfluous by now
            self._calls_started += 1
            self._busy_since[thread] = time.monotonic()
            run_call(call, handle)
            del call  # which refers to the call's messages
            del self._busy_since[thread]

    @contextmanager
    def _replace_thread(self) -> Iterator[None]:
        """Count the calling thread as blocked, and start another one if it is missing."""
        thread = threading.get_ident()
        self._busy_since[thread] = 0.0
        with self._lock:
            self._blocked += 1
        try:
            if self._thread_count - self._blocked < self._target:
                with suppress(RuntimeError):  # the system has no more threads; _watch tries again
                    self._add_thread()
            yield
        finally:
            self._busy_since[thread] = time.monotonic()

    def _should_exit(self) -> bool:
        if self._thread_count - self._blocked <= self._target or not self._calls.empty():
            return False
        with self._lock:
            if self._thread_count - self._blocked <= self._target:
                return False
            self._thread_count -= 1
            return True

    def _watch(self) -> None:
        """Count the blocked threads, and add threads whenever calls wait and none has started.

        Each time the number of threads at most doubles, since all waiting calls may be silent too.
        If the system has no threads left, it may have some a moment later: the loop tries again.
        """
        has_failed = False
        while True:
            self._submitted.wait(IDLE_THREAD_SECONDS)
            calls_started = self._calls_started
            time.sleep(BLOCKED_AFTER_SECONDS)
            self._submitted.clear()
            blocked_before = time.monotonic() - BLOCKED_AFTER_SECONDS
            self._blocked = sum(
                start < blocked_before for start in self._busy_since.copy().values()
            )
            waiting_calls = self._calls.qsize()
            if not waiting_calls:
                continue
            self._submitted.set()
            if self._calls_started == calls_started:
                missing = self._target - (self._thread_count - self._blocked)
                try:
                    for _ in range(max(missing, min(waiting_calls, self._thread_count))):
                        self._add_thread()
                    has_failed = False
                except RuntimeError as error:
                    if not has_failed:  # log it once, and not 20 times a second
                        log.error("%d threads, and %s: calls wait", self._thread_count, error)
                    has_failed = True
