"""Tests of the gate for reads with a floor."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mnist37_server.domain.position import Floor, Lineage, Position
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine import floors
from mnist37_server.engine.floors import WAIT_SECONDS, WAITING_READS_MAX, FloorGate
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.errors import FailedPrecondition, Reason, Unavailable
from mnist37_server.rpc.threads.elastic_pool import ElasticThreadPool
from support.scraping import wait_until

START, EARLIER, ELSEWHERE = 33, 22, 99
TIMEOUT_SECONDS = 30.0


def version(number: int) -> Snapshot:
    return Snapshot(number, bytes(785 * 4), 0, Origin.STEP)


@pytest.fixture
def feed() -> SnapshotFeed:
    """Return the feed of a model at version 10, whose present start began at version 5."""
    return SnapshotFeed(version(10), Lineage([Position(START, 5), Position(EARLIER, 0)]))


def test_a_floor_that_is_reached_does_not_wait(feed: SnapshotFeed) -> None:
    gate = FloorGate(feed)
    began = time.monotonic()
    for floor in (Floor(START, 10), Floor(EARLIER, 5), Floor(None, 10), Floor(START, None)):
        gate.wait(floor)
    assert time.monotonic() - began < WAIT_SECONDS / 2


def test_a_floor_that_comes_soon_is_waited_for(feed: SnapshotFeed) -> None:
    gate = FloorGate(feed)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(gate.wait, Floor(START, 12))
        time.sleep(WAIT_SECONDS / 5)
        feed.publish(version(11))
        time.sleep(WAIT_SECONDS / 5)
        assert not waiting.done()
        feed.publish(version(12))
        waiting.result(WAIT_SECONDS / 2)


def test_a_floor_that_does_not_come_is_behind(feed: SnapshotFeed) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"at version 10 here, and not yet at 11") as caught:
        FloorGate(feed).wait(Floor(START, 11))
    assert caught.value.reason is Reason.BEHIND
    assert WAIT_SECONDS <= time.monotonic() - began < 4 * WAIT_SECONDS


@pytest.mark.parametrize("floor", [Floor(EARLIER, 6), Floor(ELSEWHERE, 0)])
def test_a_floor_of_another_history_is_lost_at_once(feed: SnapshotFeed, floor: Floor) -> None:
    began = time.monotonic()
    with pytest.raises(FailedPrecondition) as caught:
        FloorGate(feed).wait(floor)
    assert time.monotonic() - began < WAIT_SECONDS / 2
    assert caught.value.reason is Reason.HISTORY_LOST
    assert caught.value.metadata == {
        "start": START,
        "version": 10,
        "floor_start": floor.start,
        "floor_version": floor.version,
    }


def test_a_start_that_may_become_known_is_waited_for(feed: SnapshotFeed) -> None:
    gate = FloorGate(feed, knows_all_starts=lambda: True)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(gate.wait, Floor(ELSEWHERE, 10))
        time.sleep(WAIT_SECONDS / 5)
        newer = Lineage([Position(ELSEWHERE, 10), *feed.current[1].starts])
        feed.publish(version(10), newer)
        waiting.result(WAIT_SECONDS / 2)


@pytest.mark.parametrize(("knows_all", "error"), [(True, FailedPrecondition), (False, Unavailable)])
def test_an_unknown_start_is_lost_only_if_all_starts_are_known(
    feed: SnapshotFeed, knows_all: bool, error: type[Exception]
) -> None:
    with pytest.raises(error):
        FloorGate(feed, lambda: knows_all).wait(Floor(ELSEWHERE, 0))


def test_where_too_many_reads_wait_the_oldest_of_them_waits_no_longer(
    feed: SnapshotFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fill all places by floors that do not come: a floor that comes soon is waited for."""
    monkeypatch.setattr(floors, "WAIT_SECONDS", TIMEOUT_SECONDS)
    gate = FloorGate(feed)
    with ThreadPoolExecutor(WAITING_READS_MAX + 1) as threads:
        oldest = threads.submit(gate.wait, Floor(START, 1_000))
        assert wait_until(lambda: len(gate._waiting) == 1)
        others = [threads.submit(gate.wait, Floor(START, 99)) for _ in range(WAITING_READS_MAX - 1)]
        assert wait_until(lambda: len(gate._waiting) == WAITING_READS_MAX)
        waiting = threads.submit(gate.wait, Floor(START, 11))
        with pytest.raises(Unavailable, match="not yet at 1000") as refused:
            oldest.result(TIMEOUT_SECONDS / 2)
        assert refused.value.reason is Reason.BEHIND
        assert len(gate._waiting) == WAITING_READS_MAX
        feed.publish(version(11))
        waiting.result(TIMEOUT_SECONDS / 2)
        assert not any(read.done() for read in others)
        feed.publish(version(99))
        for read in others:
            read.result(TIMEOUT_SECONDS / 2)
    assert not gate._waiting


def test_a_waiting_read_takes_no_thread_from_the_others(
    feed: SnapshotFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "WAIT_SECONDS", TIMEOUT_SECONDS)
    # Without the declaration of the gate the pool of this test never starts another thread.
    monkeypatch.setattr("mnist37_server.rpc.threads.elastic_pool.BLOCKED_AFTER_SECONDS", 60.0)
    gate = FloorGate(feed)
    pool = ElasticThreadPool(2, "floor-test")
    answered = threading.Event()
    for _ in range(4):
        pool.submit(gate.wait, Floor(START, 11))
    pool.submit(answered.set)
    assert answered.wait(5)
    feed.publish(version(11))
