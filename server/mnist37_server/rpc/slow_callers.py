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
        self._canceled = 0  # calls since the last line in the log
        self._next_log_time = 0.0
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
            now = time.monotonic()
            if self._sending:
                for context in self._slow(self._sending.copy(), now):
                    self._sending.pop(context, None)
                    self._cancel(context)
            if self._reading:
                calls = self._reading.copy()
                for context in self._slow({call: item[0] for call, item in calls.items()}, now):
                    self._reading.pop(context, None)
                    self._cancel(context)
                    # Where the connection takes nothing any more, the call does not end by that.
                    handle = calls[context][1]
                    if handle is not None:
                        handle.complete()
            if self._canceled and now >= self._next_log_time:
                log.warning(
                    "canceled %d calls: their callers were too slow to send a message or to read"
                    " an answer",
                    self._canceled,
                )
                self._canceled = 0
                self._next_log_time = now + LOG_INTERVAL_SECONDS

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

    def _cancel(self, context: grpc.ServicerContext) -> None:
        context.cancel()
        self._canceled += 1
