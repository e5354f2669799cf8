"""Tests of the followers and of the pace at which they get the versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from mnist37_server.domain.position import Lineage, Position
from mnist37_server.domain.route import Route
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine import followers as module
from mnist37_server.engine.followers import Follower, Followers
from mnist37_server.engine.snapshot_feed import FeedSubscriber, SnapshotFeed, View
from mnist37_server.errors import Exhausted, Reason

TIMEOUT_SECONDS = 30.0


def version(number: int) -> Snapshot:
    return Snapshot(number, bytes(785 * 4), 0, Origin.STEP)


@pytest.fixture
def feed() -> SnapshotFeed:
    return SnapshotFeed(version(0), Lineage([Position(7, 0)]))


def wait_until(condition: Callable[[], bool]) -> None:
    end_time = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end_time
        time.sleep(0.01)


class Reader:
    """A follower that is read by a thread of its own."""

    def __init__(self, followers: Followers, follower: Follower, read_seconds: float = 0) -> None:
        self.seen: list[tuple[float, int]] = []
        self.thread = threading.Thread(target=self._read, args=(followers, follower, read_seconds))
        self.thread.start()

    def _read(self, followers: Followers, follower: Follower, read_seconds: float) -> None:
        for view in followers.updates(follower):
            self.seen.append((time.monotonic(), view.snapshot.version))
            time.sleep(read_seconds)

    @property
    def versions(self) -> list[int]:
        return [version for _, version in self.seen]


def test_a_follower_gets_the_newest_version_and_each_new_one(feed: SnapshotFeed) -> None:
    followers = Followers(feed)
    follower = followers.connect("a", "here:1", 0)
    reader = Reader(followers, follower)
    for number in (1, 2, 3):
        wait_until(lambda number=number: len(reader.seen) == number)  # type: ignore[misc]
        feed.publish(version(number))
    wait_until(lambda: reader.versions == [0, 1, 2, 3])
    (record,) = followers.records()
    wait_until(lambda: followers.records()[0].sent == Position(7, 3))
    assert (record.name, record.address) == ("a", "here:1")
    followers.disconnect(follower)
    reader.thread.join(TIMEOUT_SECONDS)
    assert not reader.thread.is_alive()
    assert followers.records() == []


def test_a_slow_reader_misses_versions_but_not_the_newest(feed: SnapshotFeed) -> None:
    followers = Followers(feed)
    follower = followers.connect("", "", 0)
    reader = Reader(followers, follower, read_seconds=0.05)
    for number in range(1, 1000):
        feed.publish(version(number))
        time.sleep(0.0002)
    assert followers.records()[0].age > 0
    wait_until(lambda: reader.versions[-1] == 999)
    assert reader.versions == sorted(set(reader.versions))
    assert len(reader.versions) < 50
    wait_until(lambda: followers.records()[0].age == 0)
    followers.disconnect(follower)


def test_a_silent_model_gives_a_sign_of_life(
    feed: SnapshotFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    followers = Followers(feed)
    follower = followers.connect("", "", 0)
    reader = Reader(followers, follower)
    wait_until(lambda: reader.versions == [0, 0, 0, 0])
    followers.disconnect(follower)


def test_a_follower_that_has_to_rest_gets_its_sign_of_life_in_time(
    feed: SnapshotFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.4)
    followers = Followers(feed)
    follower = followers.connect("", "", 0.35)
    reader = Reader(followers, follower)
    wait_until(lambda: len(reader.seen) >= 4)
    followers.disconnect(follower)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(reader.seen)]
    assert min(gaps) < 0.6


def test_the_least_interval_is_kept(feed: SnapshotFeed) -> None:
    followers = Followers(feed)
    follower = followers.connect("", "", 0.1)
    reader = Reader(followers, follower)
    end_time = time.monotonic() + 1.05
    while time.monotonic() < end_time:
        feed.publish(version(feed.newest.version + 1))
        time.sleep(0.001)
    followers.disconnect(follower)
    assert 5 <= len(reader.seen) <= 12


def test_the_same_name_ends_the_earlier_follower(feed: SnapshotFeed) -> None:
    followers = Followers(feed, limit=2)
    other = Reader(followers, followers.connect("other", "", 0))
    earlier = Reader(followers, followers.connect("a", "", 0))
    later = Reader(followers, followers.connect("a", "", 0))
    earlier.thread.join(TIMEOUT_SECONDS)
    assert not earlier.thread.is_alive()
    assert other.thread.is_alive()
    assert later.thread.is_alive()
    with pytest.raises(Exhausted) as caught:
        followers.connect("b", "", 0)
    assert caught.value.reason is Reason.TOO_MANY_STREAMS
    for follower in [*followers._connected]:
        followers.disconnect(follower)


def test_readers_without_a_name_do_not_replace_each_other(feed: SnapshotFeed) -> None:
    followers = Followers(feed)
    connected = [followers.connect("", "", 0) for _ in range(3)]
    assert len(followers.records()) == 3
    for follower in connected:
        followers.disconnect(follower)
    assert followers.records() == []


def test_the_rest_grows_with_the_followers_and_the_cost(feed: SnapshotFeed) -> None:
    followers = Followers(feed)
    first = followers.connect("", "", 0)
    alone = followers.rest_seconds(first)
    for _ in range(15):
        followers.connect("", "", 0)
    assert followers.rest_seconds(first) == pytest.approx(16 * alone)
    for _ in range(200):
        followers._record_message(1e-3 - module.CORE_SECONDS)
    # Sixteen followers, each of which costs a millisecond in 0.16 s: a tenth of a core.
    assert followers.rest_seconds(first) == pytest.approx(16 * 1e-3 / 0.1, rel=0.01)


class Passing:
    """A follower that is followed: its knowledge is what a test says."""

    def __init__(self, feed: SnapshotFeed) -> None:
        self.now = View(*feed.current, 5.0, True, Route("owner:1", ("me",)))
        self.feed = feed

    def subscribe(self) -> FeedSubscriber:
        return self.feed.subscribe()

    def view(self) -> View:
        return self.now


def test_what_is_known_of_a_version_is_passed_on_at_once(
    feed: SnapshotFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1_000)
    passing = Passing(feed)
    followers = Followers(passing)
    updates = followers.updates(followers.connect("", "", 0))
    assert next(updates) == passing.now
    for age, is_heard in ((0.1, True), (0.2, False)):
        passing.now = passing.now._replace(age=age, is_heard=is_heard)
        feed.confirm()
        assert next(updates) == passing.now


@pytest.mark.parametrize(
    "change",
    [{"lineage": Lineage([Position(8, 0), Position(7, 0)])}, {"route": Route("owner:2", ("me",))}],
)
def test_a_stream_ends_with_the_start_and_the_way(
    feed: SnapshotFeed, change: dict[str, Any]
) -> None:
    passing = Passing(feed)
    followers = Followers(passing)
    updates = followers.updates(followers.connect("", "", 0))
    next(updates)
    passing.now = passing.now._replace(**change)
    feed.confirm()
    assert next(updates, None) is None


def test_a_version_that_comes_while_the_reader_is_served_is_sent_once(feed: SnapshotFeed) -> None:
    class Hasty(Passing):
        def view(self) -> View:
            """Return a version that is published only now: the reader was woken by another one."""
            feed.publish(version(1))
            return View(*feed.current)

    followers = Followers(Hasty(feed))
    follower = followers.connect("", "", 0)
    assert next(followers.updates(follower)).snapshot.version == 1
    assert follower.subscriber.next(0) is None
