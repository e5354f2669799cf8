"""The short calls' threads: few, and more only while those are held up."""

from __future__ import annotations

import threading
import time

import pytest
from mnist37_server.threads import FewThreads


def threads_of(name: str) -> int:
    return sum(
        thread.name.startswith(name) and not thread.name.endswith("watch")
        for thread in threading.enumerate()
    )


def test_calls_are_done_and_their_outcome_told() -> None:
    pool = FewThreads(2, "done")
    assert [pool.submit(pow, 2, n).result(5) for n in range(50)] == [2**n for n in range(50)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(5)
    assert threads_of("done") == 2


def test_who_holds_all_threads_does_not_hold_up_the_others() -> None:
    pool, go = FewThreads(2, "held"), threading.Event()
    held = [pool.submit(go.wait, 30) for _ in range(5)]
    began = time.monotonic()
    assert pool.submit(lambda: "done").result(10) == "done"
    assert time.monotonic() - began < 5
    assert pool.submit(lambda: "again").result(10) == "again"
    go.set()
    assert all(future.result(10) for future in held)
    deadline = time.monotonic() + 10
    while threads_of("held") > 2 and time.monotonic() < deadline:
        pool.submit(int).result(10)
    assert threads_of("held") == 2


def test_a_call_that_was_cancelled_in_time_is_not_done() -> None:
    pool, go = FewThreads(1, "cancelled"), threading.Event()
    first = pool.submit(go.wait, 30)
    done: list[int] = []
    second = pool.submit(done.append, 1)
    assert second.cancel()
    go.set()
    assert first.result(10)
    pool.submit(int).result(10)
    assert not done


def test_many_who_are_held_up_cost_the_others_a_moment_and_only_once() -> None:
    pool, go = FewThreads(2, "silent"), threading.Event()
    held = [pool.submit(go.wait, 30) for _ in range(200)]
    began = time.monotonic()
    pool.submit(int).result(10)
    assert time.monotonic() - began < 5, "at a thread each 50 ms it would be 10 seconds"
    time.sleep(0.2)
    pool.submit(int).result(10)
    began = time.monotonic()
    for _ in range(40):
        pool.submit(int).result(10)
    assert time.monotonic() - began < 1, "there are threads that are not held up"
    go.set()
    assert all(future.result(10) for future in held)
