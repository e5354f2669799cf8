"""Tests of the feed of committed versions: the newest, in order, without waiting for readers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from mnist37_server.domain.commands.commands import Step
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.position import Lineage, Position
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.storage.store import Store
from support.twin import datasets

from mnist37.host import Host

TIMEOUT_SECONDS = 30.0
PAUSE_SECONDS = 0.05
LINEAGE = Lineage([Position(1, 0)])


def version(number: int) -> Snapshot:
    return Snapshot(number, bytes(785 * 4), 0, Origin.STEP)


def test_a_subscriber_receives_the_newest_version_then_each_new_one() -> None:
    feed = SnapshotFeed(version(1), LINEAGE)
    with feed.subscribe() as subscriber:
        assert subscriber.next(0) == version(1)
        assert subscriber.next(PAUSE_SECONDS) is None
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(subscriber.next, TIMEOUT_SECONDS)
            time.sleep(PAUSE_SECONDS)
            assert not waiting.done()
            feed.publish(version(2))
            assert waiting.result(TIMEOUT_SECONDS) == version(2)
        assert feed.newest == version(2)


def test_a_slow_subscriber_misses_versions_but_never_the_newest() -> None:
    feed = SnapshotFeed(version(1), LINEAGE)
    with feed.subscribe() as slow:
        for number in range(2, 100):
            feed.publish(version(number))
        assert slow.next(0) == version(99)
        assert slow.next(0) is None


def test_versions_never_go_back_at_a_high_rate() -> None:
    feed = SnapshotFeed(version(0), LINEAGE)
    seen: list[int] = []
    last = 20_000

    def read() -> None:
        with feed.subscribe() as subscriber:
            while not seen or seen[-1] < last:
                snapshot = subscriber.next(TIMEOUT_SECONDS)
                assert snapshot is not None
                seen.append(snapshot.version)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, last + 1):
        feed.publish(version(number))
    thread.join(TIMEOUT_SECONDS)
    assert seen == sorted(set(seen))
    assert seen[-1] == last


def test_closing_ends_the_wait() -> None:
    feed = SnapshotFeed(version(1), LINEAGE)
    subscriber = feed.subscribe()
    assert subscriber.next(0) == version(1)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(subscriber.next)
        time.sleep(PAUSE_SECONDS)
        subscriber.close()
        assert waiting.result(TIMEOUT_SECONDS) is None
    feed.publish(version(2))
    assert subscriber.next(0) is None


def test_a_live_model_feeds_what_it_commits() -> None:
    torch.set_num_threads(1)
    model = LiveModel(datasets(), Host(), Store(None))
    with model.feed.subscribe() as subscriber:
        first = subscriber.next(0)
        assert first is not None
        assert first.version == 0
        for answer in model.submit(Step()):
            assert answer.version == 1
        stepped = subscriber.next(TIMEOUT_SECONDS)
        assert stepped is model.at().snapshot
        list(model.submit(Train(epochs=3)))
        trained = subscriber.next(TIMEOUT_SECONDS)
        while trained is not None and trained.version < 1 + 3 * 49:
            trained = subscriber.next(TIMEOUT_SECONDS)
        assert trained is model.at().snapshot
    model.stop_writing()
    model.close()


def test_a_word_about_the_newest_version_wakes_a_subscriber_once() -> None:
    feed = SnapshotFeed(version(1), LINEAGE)
    with feed.subscribe() as subscriber:
        assert subscriber.next(0) == version(1)
        feed.confirm()
        assert subscriber.pending_seconds() == 0, "it has the newest version"
        assert subscriber.next(0) == version(1)
        assert subscriber.next(0) is None
        newest = version(2)
        feed.publish(newest)
        subscriber.skip(newest)
        assert subscriber.next(0) is None, "it has this version too"
