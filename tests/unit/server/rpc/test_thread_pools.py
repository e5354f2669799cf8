"""Tests of the thread pools: the elastic one for short calls, and the LIFO one for all others."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

import pytest
from mnist37_server.rpc.threads.elastic_pool import ElasticThreadPool
from mnist37_server.rpc.threads.thread_pools import LifoThreadPool


def threads_of(name: str) -> int:
    return sum(
        thread.name.startswith(name) and not thread.name.endswith("watch")
        for thread in threading.enumerate()
    )


def submit(pool: ElasticThreadPool | LifoThreadPool, work: Callable[[], object]) -> threading.Event:
    """Submit a call, and return an event that is set at its end."""
    end = threading.Event()
    pool.submit(work).add_done_callback(lambda _: end.set())
    return end


def test_calls_are_done_and_their_callbacks_are_called(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = ElasticThreadPool(2, "done"), SimpleQueue[int]()
    for n in range(50):
        pool.submit(done.put, n)
    assert sorted(done.get(timeout=5) for _ in range(50)) == list(range(50))
    assert submit(pool, lambda: 1 // 0).wait(5)
    assert "ZeroDivisionError" in caplog.text
    assert submit(pool, int).wait(5)
    assert threads_of("done") == 2


def test_a_callback_that_is_added_after_the_end_is_called() -> None:
    pool, calls = ElasticThreadPool(1, "late"), list[object]()
    future = pool.submit(int)
    assert submit(pool, int).wait(5), "the one thread has done both calls"
    future.add_done_callback(calls.append)
    assert calls == [future]


def test_calls_that_block_all_threads_do_not_block_other_calls() -> None:
    pool, go = ElasticThreadPool(2, "held"), threading.Event()
    blocked = [submit(pool, partial(go.wait, 30)) for _ in range(5)]
    assert submit(pool, int).wait(5)
    assert submit(pool, int).wait(10)
    assert not any(end.is_set() for end in blocked)
    go.set()
    assert all(end.wait(10) for end in blocked)
    deadline = time.monotonic() + 10
    while threads_of("held") > 2 and time.monotonic() < deadline:
        assert submit(pool, int).wait(10)
    assert threads_of("held") == 2


def test_many_blocked_calls_delay_the_others_shortly_and_only_once() -> None:
    pool, go = ElasticThreadPool(2, "silent"), threading.Event()
    held = [submit(pool, partial(go.wait, 30)) for _ in range(200)]
    assert submit(pool, int).wait(5), "one new thread each 50 ms would take 10 seconds"
    time.sleep(0.2)
    assert submit(pool, int).wait(10)
    began = time.monotonic()
    for _ in range(40):
        assert submit(pool, int).wait(10)
    assert time.monotonic() - began < 1, "there must be threads that are not blocked"
    go.set()
    assert all(end.wait(10) for end in held)


def test_there_are_as_many_threads_as_calls_up_to_the_maximum() -> None:
    pool, go = LifoThreadPool(3, "many"), threading.Event()
    held = [submit(pool, partial(go.wait, 30)) for _ in range(5)]
    after = submit(pool, int)
    assert threads_of("many") == 3
    assert not after.wait(0.2), "all threads are busy"
    go.set()
    assert all(end.wait(10) for end in [*held, after])
    assert submit(pool, int).wait(10)
    assert threads_of("many") == 3


def test_the_thread_that_became_idle_last_is_the_next() -> None:
    pool, used = LifoThreadPool(8, "last"), SimpleQueue[int]()
    gates = [threading.Event() for _ in range(3)]
    held = [submit(pool, partial(gate.wait, 30)) for gate in gates]
    gates[1].set()
    assert held[1].wait(10)
    for _ in range(20):
        end = submit(pool, lambda: used.put(threading.get_ident()))
        assert end.wait(10)
        time.sleep(0.01)  # until the thread is idle again
    assert len({used.get() for _ in range(20)}) == 1
    assert threads_of("last") == 3
    for gate in gates:
        gate.set()


def test_a_calls_exception_is_logged_and_its_callback_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = LifoThreadPool(1, "raising")
    assert submit(pool, lambda: 1 // 0).wait(5)
    assert "ZeroDivisionError" in caplog.text
    assert submit(pool, int).wait(5)


def test_a_callback_that_raises_does_not_block_other_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool, go, calls = LifoThreadPool(1, "told"), threading.Event(), list[object]()
    future = pool.submit(go.wait, 30)
    future.add_done_callback(calls.append)
    future.add_done_callback(lambda _: [].pop())
    go.set()
    assert submit(pool, int).wait(5)
    assert calls == [future]
    assert "pop from empty list" in caplog.text


def test_a_pool_keeps_no_reference_to_a_call_after_its_end() -> None:
    # Otherwise grpcio's objects of the call would stay in memory.

    class Message:
        pass

    pool = LifoThreadPool(2, "let-go")
    messages = [Message() for _ in range(4)]
    held = [weakref.ref(message) for message in messages]
    ends = [submit(pool, partial(id, message)) for message in messages]
    assert all(end.wait(5) for end in ends)
    messages.clear()
    assert submit(pool, int).wait(5)
    deadline = time.monotonic() + 5
    while any(ref() for ref in held) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(ref() for ref in held)


def test_calls_wait_when_no_more_threads_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, go = LifoThreadPool(8, "scarce"), threading.Event()
    held = submit(pool, partial(go.wait, 30))

    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    waiting = [submit(pool, int) for _ in range(3)]
    monkeypatch.undo()
    go.set()
    assert all(end.wait(5) for end in [held, *waiting])
    assert threads_of("scarce") == 1


def test_blocked_threads_are_replaced_as_soon_as_threads_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool, go = ElasticThreadPool(2, "none-left"), threading.Event()
    held = [submit(pool, partial(go.wait, 30)) for _ in range(2)]
    refused = threading.Semaphore(0)

    def no_more(_: object) -> None:
        refused.release()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", no_more)
    waiting = submit(pool, int)
    assert all(refused.acquire(timeout=5) for _ in range(3)), "the pool must try again"
    assert not waiting.is_set()
    monkeypatch.undo()
    assert waiting.wait(5)
    assert caplog.text.count("can't start new thread") == 1
    go.set()
    assert all(end.wait(5) for end in held)
    deadline = time.monotonic() + 10
    while threads_of("none-left") > 2 and time.monotonic() < deadline:
        assert submit(pool, int).wait(10)
    assert threads_of("none-left") == 2, "threads that could not be started must not count"


def test_many_calls_from_one_thread_are_each_done_once() -> None:
    pool, done = LifoThreadPool(4, "counted"), SimpleQueue[int]()
    ends = [submit(pool, partial(done.put, n)) for n in range(5_000)]
    assert all(end.wait(10) for end in ends)
    assert sorted(done.get_nowait() for _ in range(5_000)) == list(range(5_000))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policies")
@pytest.mark.parametrize("pool", [ElasticThreadPool, LifoThreadPool])
def test_threads_do_not_preempt_the_thread_that_wakes_them(
    pool: type[ElasticThreadPool] | type[LifoThreadPool],
) -> None:
    policies = SimpleQueue[int]()

    def work() -> None:
        policies.put(os.sched_getscheduler(0))

    def run_under_idle_policy() -> None:  # a thread inherits the policy of the one that starts it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        pool(1, "chosen").submit(work)

    pool(1, "usual").submit(work)
    assert policies.get(timeout=5) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "the caller's policy must not change"
    threading.Thread(target=run_under_idle_policy).start()
    assert policies.get(timeout=5) == os.SCHED_IDLE
