"""Tests of the limits for callers that are slow to send a message or to read an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mnist37_server.errors import CallerCancelled, MalformedMessage
from mnist37_server.rpc.slow_callers import SlowCallers
from mnist37_server.rpc.threads.thread_pools import LifoThreadPool
from support.scraping import wait_until


class Context:
    """The part of grpcio's context that the limits use."""

    def __init__(self) -> None:
        self.is_canceled = False
        self.callbacks: list[Callable[[], None]] = []

    def cancel(self) -> None:
        self.is_canceled = True

    def is_active(self) -> bool:
        return not self.is_canceled

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return True


def test_the_message_is_returned_and_the_call_waits_no_longer() -> None:
    callers, context = SlowCallers(0.1, 1), Context()
    assert callers.receive(iter([b"message"]), context) == b"message"  # type: ignore[arg-type]
    time.sleep(0.5)
    assert not context.is_canceled


def test_a_call_without_a_message_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="no message; send exactly one"):
        SlowCallers().receive(iter(()), Context())  # type: ignore[arg-type]


def test_a_call_that_is_canceled_before_its_message_comes_is_not_malformed() -> None:
    context = Context()
    context.cancel()
    with pytest.raises(CallerCancelled):
        SlowCallers().receive(iter(()), context)  # type: ignore[arg-type]


def test_a_place_is_given_back_even_if_the_canceled_call_does_not_end() -> None:
    callers, context = SlowCallers(timeout_seconds=0.1, calls_max=1), Context()
    completed: list[Any] = []
    handle = LifoThreadPool(1, "stuck").submit(callers.watch_answer, context)  # type: ignore[arg-type]
    handle.add_done_callback(completed.append)
    assert wait_until(lambda: context.is_canceled, 5)
    assert wait_until(lambda: completed == [handle], 5)
    context.callbacks[0]()
    assert completed == [handle]


def test_a_call_is_canceled_when_its_message_takes_too_long() -> None:
    callers, context = SlowCallers(0.1, 100), Context()

    def messages() -> Iterator[bytes]:
        assert wait_until(lambda: context.is_canceled, 5)
        yield b"too late"

    callers.receive(messages(), context)  # type: ignore[arg-type]


def test_the_oldest_of_too_many_unread_answers_are_canceled() -> None:
    callers = SlowCallers(timeout_seconds=60, calls_max=2, grace_seconds=0.2)
    contexts = [Context() for _ in range(5)]
    for context in contexts:
        callers.watch_answer(context)  # type: ignore[arg-type]
    assert wait_until(lambda: contexts[2].is_canceled, 5)
    assert [context.is_canceled for context in contexts] == [True] * 3 + [False] * 2


def test_a_call_counts_until_its_answer_is_sent() -> None:
    callers, context, pool = SlowCallers(), Context(), LifoThreadPool(1, "counted")
    completed: list[Any] = []
    handle = pool.submit(callers.watch_answer, context)  # type: ignore[arg-type]
    handle.add_done_callback(completed.append)
    assert wait_until(lambda: bool(context.callbacks), 5)
    assert wait_until(lambda: handle.is_deferred, 5)
    time.sleep(0.1)
    assert not completed
    context.callbacks[0]()
    assert completed == [handle]
