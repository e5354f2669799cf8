"""Limits for the calls that wait for their caller to send a message or to read the answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import grpc

from mnist37_server.errors import CallerCancelled, MalformedMessage
from mnist37_server.rpc.threads.thread_pools import CompletionHandle, defer_completion

TIMEOUT_SECONDS = 60.0
CALLS_MAX = 512
CHECK_INTERVAL_SECONDS = 0.25
LOG_INTERVAL_SECONDS = 10.0

log = logging.getLogger(__name__)


class SlowCallers:
    """The calls that wait for a slow caller, bounded in time and in number.

    grpcio has no timer for a message that is half-sent, nor for an answer that nobody reads: such a
    call lasts as long as its caller answers pings. Here a thread cancels a call whose caller takes
    longer than `timeout_seconds`. If more than `calls_max` calls wait for their callers, it cancels
    the oldest of them, though none that has waited for less than `grace_seconds`.

    Args:
        timeout_seconds: how long a caller may take to send its message, and to read the answer.
        calls_max: how many calls may wait for messages, and as many for answers to be read.
        grace_seconds: how long a call may wait in any case.
    """

    def __init__(
        self,
        timeout_seconds: float = TIMEOUT_SECONDS,
        calls_max: int = CALLS_MAX,
        grace_seconds: float = 1.0,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._calls_max = calls_max
        self._grace_seconds = grace_seconds
        # When each call began to wait, oldest first. Each operation on them is atomic in CPython.
        self._sending: dict[grpc.ServicerContext, float] = {}
        # With the handles by which grpcio counts the calls.
        self._reading: dict[grpc.ServicerContext, tuple[float, CompletionHandle | None]] = {}
        self._canceled = CanceledCalls()
        threading.Thread(target=self._watch, name="slow-callers", daemon=True).start()

    def receive(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Return the one message of a call.

        Raises:
            MalformedMessage: the caller ended its messages before it sent one.
            CallerCancelled: the caller cancelled the call before it sent a message.
            grpc.RpcError: the call was canceled.
        """
        for message in self.receive_all(requests, context):
            return message
        if not context.is_active():
            raise CallerCancelled("the caller left")
        raise MalformedMessage("the call has no message; send exactly one")

    def receive_all(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Yield the messages of a call, each of which must come in time."""
        while True:
            self._sending[context] = time.monotonic()
            try:
                message = next(requests)
            except StopIteration:
                return
            finally:
                self._sending.pop(context, None)
            yield message

    def watch_answer(self, context: grpc.ServicerContext) -> None:
        """Count a call as in progress until its last answer is sent.

        Call it at the end of the call's handler, on the handler's thread. Otherwise grpcio counts
        the call no longer from here on, and answers that nobody reads have no limit.
        """
        handle = defer_completion()
        self._reading[context] = time.monotonic(), handle

        def complete() -> None:
            self._reading.pop(context, None)
            if handle is not None:
                handle.complete()

        if not context.add_callback(complete):
            complete()

    def _watch(self) -> None:
        while True:
            time.sleep(CHECK_INTERVAL_SECONDS)
            now, canceled = time.monotonic(), 0
            if self._sending:
                for context in self._slow(self._sending.copy(), now):
                    self._sending.pop(context, None)
                    context.cancel()
                    canceled += 1
            if self._reading:
                calls = self._reading.copy()
                for context in self._slow({call: item[0] for call, item in calls.items()}, now):
                    self._reading.pop(context, None)
                    context.cancel()
                    canceled += 1
                    # Where the connection takes nothing any more, the call does not end by that.
                    handle = calls[context][1]
                    if handle is not None:
                        handle.complete()
            if canceled:
                self._canceled.add(canceled)

    def _slow(
        self, calls: dict[grpc.ServicerContext, float], now: float
    ) -> Iterator[grpc.ServicerContext]:
        """Yield the calls to cancel, of calls with the time since when each waits."""
        excess = len(calls) - self._calls_max
        for number, (context, since) in enumerate(calls.items()):
            waited_seconds = now - since
            too_many = number < excess and waited_seconds >= self._grace_seconds
            if waited_seconds < self._timeout_seconds and not too_many:
                return  # the calls behind it have waited for less
            yield context


class CanceledCalls:
    """The calls that were canceled for being slow; the log has at most a line in 10 seconds."""

    def __init__(self) -> None:
        # guarded by _lock: all of these
        self._lock = threading.Lock()
        self._count = 0  # since the last line
        self._next_time = 0.0  # of a line, on time.monotonic's clock
        self._has_timer = False

    def add(self, count: int = 1) -> None:
        """Log that calls were canceled, at once or together with those that follow."""
        with self._lock:
            self._count += count
            wait_seconds = self._next_time - time.monotonic()
            if wait_seconds <= 0:
                self._report()
            elif not self._has_timer:
                self._has_timer = True
                timer = threading.Timer(wait_seconds, self._end_timer)
                timer.daemon = True
                timer.start()

    def _end_timer(self) -> None:
        with self._lock:
            self._has_timer = False
            if self._count:
                self._report()

    def _report(self) -> None:
        log.warning(
            "canceled %d calls: their callers were too slow to send a message or to read an answer",
            self._count,
        )
        self._count = 0
        self._next_time = time.monotonic() + LOG_INTERVAL_SECONDS
