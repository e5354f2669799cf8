"""Tests of what a follower holds: versions only rise within a history, and none is mixed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from mnist37_server.domain.position import Position
from mnist37_server.domain.route import Route
from mnist37_server.domain.snapshot import Origin
from mnist37_server.follower.replica import HEARD_VERSIONS, InvalidUpdate, Replica, Update

OLD, NEW, OTHER = 11, 12, 99  # ids of starts
PASSED_ON = Route("owner:1", ("middle",))


def content(version: int, history: int = 0) -> bytes:
    return bytes([version % 256, history]) + bytes(3138)


def update(start: int, version: int, *starts: Position, history: int = 0, **fields: Any) -> Update:
    values = {"content": content(version, history), "origin": Origin.STEP, "run": None, **fields}
    return Update(Position(start, version), starts=starts, **values)


@pytest.fixture
def replica() -> Replica:
    """Return a replica with versions 3, 4 and 5 of the start OLD, which began at 3."""
    replica = Replica()
    replica.receive(update(OLD, 3, Position(OLD, 3)), 1.0)
    for version in (4, 5):
        replica.receive(update(OLD, version), 2.0)
    return replica


def held(replica: Replica) -> list[int]:
    assert replica.feed is not None
    versions = replica.versions_of(replica.feed.current[1])
    assert versions is not None
    return versions.numbers()


def test_the_first_version_is_told_once() -> None:
    told = []
    replica = Replica()
    replica.on_first = lambda: told.append(replica.position)
    assert (replica.position, replica.age) == (None, None)
    replica.receive(update(OLD, 3, Position(OLD, 3)), 0.0)
    replica.receive(update(OLD, 4), 0.0)
    assert told == [Position(OLD, 3)]


def test_an_older_message_never_replaces_a_newer_one(replica: Replica) -> None:
    replica.receive(update(OLD, 4), 3.0)
    assert replica.position == Position(OLD, 5)
    assert replica.resets == 0


def test_the_same_version_needs_no_parameters(replica: Replica) -> None:
    assert replica.feed is not None
    before = replica.feed.newest
    replica.receive(update(OLD, 5, content=b""), 3.0)
    replica.receive(update(OLD, 5, Position(OLD, 3), content=b""), 3.0)
    assert replica.feed.newest is before


def test_a_new_start_of_the_same_history_keeps_the_versions(replica: Replica) -> None:
    replica.receive(update(NEW, 6, Position(NEW, 5), Position(OLD, 3)), 3.0)
    assert replica.position == Position(NEW, 6)
    assert held(replica) == [6, 5, 4, 3]
    assert replica.resets == 0


@pytest.mark.parametrize(
    "starts",
    [
        [Position(OTHER, 0)],
        # A backup: the new start began at a version before the one that is held.
        [Position(NEW, 4), Position(OLD, 3)],
    ],
)
def test_another_history_replaces_all(replica: Replica, starts: list[Position]) -> None:
    assert replica.feed is not None
    lineage = replica.feed.current[1]
    replica.receive(update(starts[0].start, 5, *starts, history=1), 3.0)
    assert replica.feed.newest.content == content(5, history=1)
    assert held(replica) == [5]
    assert replica.resets == 1
    # A reader that still has the old history gets nothing of the new one.
    assert replica.versions_of(lineage) is None


def test_the_same_start_with_an_earlier_version_is_another_history(replica: Replica) -> None:
    replica.receive(update(OLD, 4, Position(OLD, 3), history=1), 3.0)
    assert replica.position == Position(OLD, 4)
    assert (held(replica), replica.resets) == ([4], 1)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (update(OLD, 6, content=b""), "have 0 bytes and not 3,140"),
        (update(OLD, 6, content=bytes(3141)), "have 3,141 bytes"),
        (update(NEW, 6), "not the first of the starts"),
        (update(NEW, 6, Position(OLD, 3)), "not the first of the starts"),
        (update(OTHER, 5, Position(OTHER, 0), content=b""), "have 0 bytes"),
    ],
)
def test_a_wrong_message_changes_nothing(replica: Replica, wrong: Update, text: str) -> None:
    with pytest.raises(InvalidUpdate, match=text):
        replica.receive(wrong, 3.0)
    assert replica.position == Position(OLD, 5)
    assert (held(replica), replica.resets) == ([5, 4, 3], 0)
    assert replica.age is not None
    with pytest.raises(InvalidUpdate, match="no starts"):
        Replica().receive(update(OLD, 5), 0.0)


def test_what_callers_ask_for_never_displaces_what_came(replica: Replica) -> None:
    assert replica.feed is not None
    versions = replica.versions_of(replica.feed.current[1])
    assert versions is not None
    snapshot = replica.feed.newest
    for version in range(100, 100 + 2 * HEARD_VERSIONS):
        versions.add_fetched(type(snapshot)(version, snapshot.content, 0, Origin.IMPORT))
    assert [versions.get(number) is not None for number in (3, 4, 5)] == [True] * 3
    assert versions.get(100) is None


def test_the_newest_1000_that_came_are_held(replica: Replica) -> None:
    for version in range(6, 1_500):
        replica.receive(update(OLD, version), 3.0)
    assert held(replica) == list(range(1_499, 499, -1))


def test_the_age_is_that_of_the_senders_knowledge(replica: Replica) -> None:
    now = time.monotonic()
    replica.receive(update(OLD, 6, Position(OLD, 3), route=PASSED_ON, age=20.0), now)
    assert replica.age is not None
    assert 20 <= replica.age < 50
    assert replica.view().age >= replica.age - 30
    replica.receive(update(OLD, 6, content=b"", age=0.0), now)
    assert replica.age < 20, "the sender has heard since that it is the newest"


def test_the_loss_of_the_owner_is_passed_on(replica: Replica) -> None:
    assert replica.feed is not None
    replica.receive(update(OLD, 5, content=b""), 3.0)
    assert replica.view().is_heard
    with replica.feed.subscribe() as subscriber:
        subscriber.next(0)
        replica.lose()
        assert subscriber.next(0), "those who follow are told at once"
        assert not replica.view().is_heard
        replica.lose()
        assert subscriber.next(0) is None
        replica.receive(update(OLD, 5, Position(OLD, 3), content=b"", is_heard=False), 4.0)
        assert subscriber.next(0)
        assert not replica.view().is_heard, "the sender does not hear it either"
        replica.receive(update(OLD, 5, content=b""), 5.0)
        assert subscriber.next(0), "each word about the newest version is passed on"
        assert replica.view().is_heard


def test_a_new_start_with_the_same_version_is_passed_on(replica: Replica) -> None:
    assert replica.feed is not None
    with replica.feed.subscribe() as subscriber:
        subscriber.next(0)
        replica.receive(update(NEW, 5, Position(NEW, 5), Position(OLD, 3)), 3.0)
        assert subscriber.next(0)
        assert replica.view().lineage.start == NEW


@pytest.mark.parametrize(
    ("position", "starts"),
    [
        # It has the same start, and fewer versions.
        (Position(OLD, 4), [Position(OLD, 3)]),
        # It has not heard of the present start; with versions that were lost, too.
        (Position(NEW - 10, 2), [Position(NEW - 10, 0)]),
        (Position(NEW - 10, 9), [Position(NEW - 10, 0)]),
    ],
)
def test_a_follower_that_is_behind_changes_nothing(
    position: Position, starts: list[Position]
) -> None:
    replica = Replica()
    replica.receive(update(OLD, 3, Position(OLD, 3), Position(NEW - 10, 0)), 1.0)
    for version in (4, 5):
        replica.receive(update(OLD, version), 2.0)
    before = replica.view()
    first = update(*position, *starts, history=1, route=PASSED_ON)
    replica.receive(first, time.monotonic())
    replica.receive(update(*position, history=1), time.monotonic())
    assert replica.view()[:2] == before[:2]
    assert (held(replica), replica.resets) == ([5, 4, 3], 0)
    assert replica.age is not None
    assert replica.age >= before.age, "it does not know that version 5 is the newest"
    # It has caught up.
    newest = update(OLD, 6, Position(OLD, 3), Position(NEW - 10, 0), route=PASSED_ON)
    replica.receive(newest, time.monotonic())
    assert (held(replica), replica.resets) == ([6, 5, 4, 3], 0)


@pytest.mark.parametrize(("age", "is_taken"), [(0.0, True), (10.0, False)])
def test_of_two_foreign_models_that_which_was_heard_of_later_is_right(
    replica: Replica, age: float, is_taken: bool
) -> None:
    replica.receive(update(OLD, 6), 100.0)
    foreign = update(OTHER, 2, Position(OTHER, 0), route=PASSED_ON, age=age)
    replica.receive(foreign, 105.0)
    assert replica.position == (Position(OTHER, 2) if is_taken else Position(OLD, 6))
    assert replica.resets == is_taken
    # The owner itself is always right.
    replica.receive(update(OTHER, 3, Position(OTHER, 0)), 106.0)
    assert replica.position == Position(OTHER, 3)


def test_a_follower_that_knows_of_a_later_start_is_right(replica: Replica) -> None:
    replica.receive(update(OLD, 6), 100.0)
    starts = [Position(NEW, 4), Position(OLD, 3)]  # a backup of version 4 was restored
    replica.receive(update(NEW, 4, *starts, route=PASSED_ON, age=50.0, history=1), 101.0)
    assert (replica.position, replica.resets) == (Position(NEW, 4), 1)
