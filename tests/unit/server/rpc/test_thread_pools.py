"""The short calls' threads, few, and more only while those are held up; and the others', many."""

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
from mnist37_server.rpc.thread_pools import ElasticThreadPool, LifoThreadPool


def threads_of(name: str) -> int:
    return sum(
        thread.name.startswith(name) and not thread.name.endswith("watch")
        for thread in threading.enumerate()
    )


def finished(
    pool: ElasticThreadPool | LifoThreadPool, work: Callable[[], object]
) -> threading.Event:
    """Is set when a call is over that does this work."""
    over = threading.Event()
    pool.submit(work).add_done_callback(lambda _: over.set())
    return over


def test_calls_are_done_and_their_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = ElasticThreadPool(2, "done"), SimpleQueue[int]()
    for n in range(50):
        pool.submit(done.put, n)
    assert sorted(done.get(timeout=5) for _ in range(50)) == list(range(50))
    assert finished(pool, lambda: 1 // 0).wait(5)
    assert "ZeroDivisionError" in caplog.text
    assert finished(pool, int).wait(5)
    assert threads_of("done") == 2


def test_the_end_is_told_also_to_who_asks_after_it() -> None:
    pool, told = ElasticThreadPool(1, "late"), list[object]()
    ending = pool.submit(int)
    assert finished(pool, int).wait(5), "by the one thread, so the first is over too"
    ending.add_done_callback(told.append)
    assert told == [ending]


def test_who_holds_all_threads_does_not_hold_up_the_others() -> None:
    pool, go = ElasticThreadPool(2, "held"), threading.Event()
    held = [finished(pool, partial(go.wait, 30)) for _ in range(5)]
    assert finished(pool, int).wait(5)
    assert finished(pool, int).wait(10)
    assert not any(over.is_set() for over in held)
    go.set()
    assert all(over.wait(10) for over in held)
    deadline = time.monotonic() + 10
    while threads_of("held") > 2 and time.monotonic() < deadline:
        assert finished(pool, int).wait(10)
    assert threads_of("held") == 2


def test_many_who_are_held_up_cost_the_others_a_moment_and_only_once() -> None:
    pool, go = ElasticThreadPool(2, "silent"), threading.Event()
    held = [finished(pool, partial(go.wait, 30)) for _ in range(200)]
    assert finished(pool, int).wait(5), "at a thread each 50 ms it would be 10 seconds"
    time.sleep(0.2)
    assert finished(pool, int).wait(10)
    began = time.monotonic()
    for _ in range(40):
        assert finished(pool, int).wait(10)
    assert time.monotonic() - began < 1, "there are threads that are not held up"
    go.set()
    assert all(over.wait(10) for over in held)


def test_there_are_as_many_threads_as_calls_that_wait_up_to_the_most() -> None:
    pool, go = LifoThreadPool(3, "many"), threading.Event()
    held = [finished(pool, partial(go.wait, 30)) for _ in range(5)]
    after = finished(pool, int)
    assert threads_of("many") == 3
    assert not after.wait(0.2), "all threads are busy"
    go.set()
    assert all(over.wait(10) for over in [*held, after])
    assert finished(pool, int).wait(10)
    assert threads_of("many") == 3


def test_the_thread_that_became_idle_last_is_the_next() -> None:
    pool, used = LifoThreadPool(8, "last"), SimpleQueue[int]()
    gates = [threading.Event() for _ in range(3)]
    held = [finished(pool, partial(gate.wait, 30)) for gate in gates]
    gates[1].set()
    assert held[1].wait(10)
    for _ in range(20):
        over = finished(pool, lambda: used.put(threading.get_ident()))
        assert over.wait(10)
        time.sleep(0.01)  # until it waits again
    assert len({used.get() for _ in range(20)}) == 1
    assert threads_of("last") == 3
    for gate in gates:
        gate.set()


def test_what_a_call_of_many_raises_is_logged_and_its_end_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = LifoThreadPool(1, "raising")
    assert finished(pool, lambda: 1 // 0).wait(5)
    assert "ZeroDivisionError" in caplog.text
    assert finished(pool, int).wait(5)


def test_whoever_is_told_of_an_end_and_raises_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool, go, told = LifoThreadPool(1, "told"), threading.Event(), list[object]()
    ending = pool.submit(go.wait, 30)
    ending.add_done_callback(told.append)
    ending.add_done_callback(lambda _: [].pop())
    go.set()
    assert finished(pool, int).wait(5)
    assert told == [ending]
    assert "pop from empty list" in caplog.text


def test_a_call_is_let_go_of_when_it_is_over() -> None:
    """With it goes what grpcio holds for it."""

    class Message:
        pass

    pool = LifoThreadPool(2, "let-go")
    messages = [Message() for _ in range(4)]
    held = [weakref.ref(message) for message in messages]
    overs = [finished(pool, partial(id, message)) for message in messages]
    assert all(over.wait(5) for over in overs)
    messages.clear()
    assert finished(pool, int).wait(5)
    deadline = time.monotonic() + 5
    while any(ref() for ref in held) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(ref() for ref in held)


def test_where_no_more_threads_are_to_be_had_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, go = LifoThreadPool(8, "scarce"), threading.Event()
    held = finished(pool, partial(go.wait, 30))

    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    waiting = [finished(pool, int) for _ in range(3)]
    monkeypatch.undo()
    go.set()
    assert all(over.wait(5) for over in [held, *waiting])
    assert threads_of("scarce") == 1


def test_who_is_held_up_gets_threads_as_soon_as_there_are_some_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool, go = ElasticThreadPool(2, "none-left"), threading.Event()
    held = [finished(pool, partial(go.wait, 30)) for _ in range(2)]
    refused = threading.Semaphore(0)

    def no_more(_: object) -> None:
        refused.release()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", no_more)
    waiting = finished(pool, int)
    assert all(refused.acquire(timeout=5) for _ in range(3)), "it is tried again and again"
    assert not waiting.is_set()
    monkeypatch.undo()
    assert waiting.wait(5)
    assert caplog.text.count("can't start new thread") == 1
    go.set()
    assert all(over.wait(5) for over in held)
    deadline = time.monotonic() + 10
    while threads_of("none-left") > 2 and time.monotonic() < deadline:
        assert finished(pool, int).wait(10)
    assert threads_of("none-left") == 2, "those that were refused don't count"


def test_many_calls_from_one_thread_are_each_done_once() -> None:
    pool, done = LifoThreadPool(4, "counted"), SimpleQueue[int]()
    endings = [finished(pool, partial(done.put, n)) for n in range(5_000)]
    assert all(over.wait(10) for over in endings)
    assert sorted(done.get_nowait() for _ in range(5_000)) == list(range(5_000))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policies")
@pytest.mark.parametrize("pool", [ElasticThreadPool, LifoThreadPool])
def test_threads_do_not_push_aside_who_wakes_them(
    pool: type[ElasticThreadPool] | type[LifoThreadPool],
) -> None:
    policies = SimpleQueue[int]()

    def work() -> None:
        policies.put(os.sched_getscheduler(0))

    def as_chosen() -> None:  # threads are scheduled as the one that starts them
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        pool(1, "chosen").submit(work)

    pool(1, "usual").submit(work)
    assert policies.get(timeout=5) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "nobody else's policy changes"
    threading.Thread(target=as_chosen).start()
    assert policies.get(timeout=5) == os.SCHED_IDLE
