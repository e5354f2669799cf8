"""Tests of the loop that follows: which messages it takes over, and when it connects anew."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from mnist37_server.domain.position import Position
from mnist37_server.domain.route import Route
from mnist37_server.domain.snapshot import Origin
from mnist37_server.errors import CannotStart
from mnist37_server.follower import follow_loop
from mnist37_server.follower.follow_loop import FollowLoop
from mnist37_server.follower.replica import Replica, Update
from support.scraping import wait_until

START = 11
TIMEOUT = 10


class BrokenStream(grpc.RpcError):
    """The end of a stream, as gRPC raises it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the connection broke"


class Stream:
    """An open Follow, whose messages are put in a queue; None ends it."""

    def __init__(self) -> None:
        self.messages: queue.SimpleQueue[Update | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Update]:
        while (message := self.messages.get()) is not None:
            yield message
        raise BrokenStream

    def end(self) -> None:
        self.messages.put(None)


class Owner:
    """An owner whose messages are those that a test sends."""

    address, name = "owner:1", "me"

    def __init__(self) -> None:
        self.stream = Stream()  # the last one
        self.held: list[Position | None] = []  # what the follower said, for each stream
        self.connections = 0
        self.problem: Exception | None = None  # of the next connections

    def connect(self) -> None:
        self.connections += 1
        if self.problem:
            raise self.problem

    def close(self) -> None:
        self.stream.end()

    def follow(self, held: Position | None) -> Stream:
        self.stream = Stream()
        self.held.append(held)
        return self.stream

    def send(
        self, version: int, *starts: Position, content: bytes = bytes(3140), **fields: Any
    ) -> None:
        position = Position(START, version)
        update = Update(position, content, Origin.STEP, None, starts, **fields)
        self.stream.messages.put(update)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def replica() -> Replica:
    return Replica()


@pytest.fixture
def loop(owner: Owner, replica: Replica) -> Iterator[FollowLoop]:
    upstream: Any = owner
    loop = FollowLoop(upstream, replica)
    yield loop
    loop.close()


def has_streams(owner: Owner, count: int) -> bool:
    return len(owner.held) == count


def begin(loop: FollowLoop, owner: Owner, replica: Replica) -> None:
    """Start the loop, and wait until it has version 5."""
    loop.start()
    assert wait_until(lambda: len(owner.held) == 1, TIMEOUT)
    owner.send(5, Position(START, 0))
    assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert replica.position == Position(START, 5)


def test_a_broken_stream_is_opened_again_with_what_is_held(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    assert loop.heard_lately()
    for count in (2, 3, 4):
        owner.stream.end()
        assert wait_until(partial(has_streams, owner, count), TIMEOUT)
        assert not loop.is_connected
        assert not loop.heard_lately()
        assert not replica.is_heard, "those who follow this follower are told"
    assert owner.held == [None, *[Position(START, 5)] * 3]
    assert owner.connections == 4
    assert caplog.text.count("the connection broke") == 1


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Have each stream count as one that was open for long, and log all."""
    monkeypatch.setattr(follow_loop, "STEADY_SECONDS", 0)
    caplog.set_level(logging.DEBUG)


def levels(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Return the levels of the lines with a text, in the order they were logged."""
    return [record.levelname for record in caplog.records if text in record.getMessage()]


@pytest.mark.usefixtures("steady")
def test_the_end_of_a_steady_stream_is_no_loss_if_the_next_one_begins_at_once(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    for count in (2, 3):
        owner.stream.end()
        assert wait_until(partial(has_streams, owner, count), TIMEOUT)
        owner.send(5, Position(START, 0))
        assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert levels(caplog, "following the owner") == ["INFO", "DEBUG", "DEBUG"]
    assert levels(caplog, "the owner is lost") == []


@pytest.mark.usefixtures("steady")
def test_the_end_of_a_steady_stream_is_a_loss_if_the_next_one_does_not_begin(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    for count in (2, 3):
        owner.stream.end()
        assert wait_until(partial(has_streams, owner, count), TIMEOUT)
    assert levels(caplog, "the owner is lost: UNAVAILABLE: the connection broke") == ["WARNING"]
    owner.send(5, Position(START, 0))
    assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert levels(caplog, "following the owner") == ["INFO", "INFO"]


@pytest.mark.usefixtures("steady")
def test_a_start_of_the_owner_is_logged(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    owner.stream.end()
    assert wait_until(partial(has_streams, owner, 2), TIMEOUT)
    new = Position(START + 1, 5)
    update = Update(new, b"", Origin.STEP, None, (new, Position(START, 0)))
    owner.stream.messages.put(update)
    assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert levels(caplog, "following the owner") == ["INFO", "INFO"]


def test_a_stream_that_ends_soon_is_a_loss_each_time(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    for count in (2, 3):
        owner.stream.end()
        assert wait_until(partial(has_streams, owner, count), TIMEOUT)
        owner.send(5, Position(START, 0))
        assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert levels(caplog, "the owner is lost") == ["WARNING"] * 2


def test_a_message_that_came_while_the_process_was_paused_is_not_used(
    loop: FollowLoop,
    owner: Owner,
    replica: Replica,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As after a pause: the thread that notes the time has not run yet.
    monkeypatch.setattr(follow_loop, "TICK_SECONDS", 60)
    monkeypatch.setattr(follow_loop, "PAUSE_SECONDS", 60)
    begin(loop, owner, replica)
    monkeypatch.setattr(follow_loop, "PAUSE_SECONDS", 0)
    owner.send(6)
    assert wait_until(lambda: "this process was paused for" in caplog.text, TIMEOUT)
    assert replica.position == Position(START, 5)


def test_a_message_is_not_used_when_the_other_thread_has_noted_the_pause_first(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    # It has noted the time already, and the end of the stream comes after the message.
    loop._stall = "this process was paused for 2.0 seconds"
    owner.send(6)
    assert wait_until(lambda: "this process was paused for" in caplog.text, TIMEOUT)
    assert replica.position == Position(START, 5)


def test_a_silent_owner_is_connected_to_anew(
    loop: FollowLoop,
    owner: Owner,
    replica: Replica,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow_loop, "STALL_SECONDS", 0.5)
    begin(loop, owner, replica)
    assert wait_until(lambda: owner.connections == 2, TIMEOUT)
    assert "nothing came for 0.5 seconds" in caplog.text


def test_a_wrong_message_ends_the_stream_and_is_not_used(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    begin(loop, owner, replica)
    owner.send(6, content=b"short")
    assert wait_until(lambda: owner.connections == 2, TIMEOUT)
    assert "the owner sent what no owner sends" in caplog.text
    assert replica.position == Position(START, 5)


def test_the_way_from_the_owner_is_what_the_first_message_says(
    loop: FollowLoop, owner: Owner, replica: Replica
) -> None:
    begin(loop, owner, replica)
    assert replica.route == Route("owner:1", ("me",))
    owner.stream.end()
    assert wait_until(partial(has_streams, owner, 2), TIMEOUT)
    owner.send(5, Position(START, 0), route=Route("root:1", ("a", "b")))
    assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert replica.route == Route("root:1", ("a", "b", "me"))


@pytest.mark.parametrize(
    ("others", "text", "route"),
    [
        (("me",), "owner:1 is this server itself", ("me",)),
        (("a", "me", "b"), "2 followers are in a circle", ("b", "me")),
    ],
)
def test_a_circle_is_left(
    loop: FollowLoop,
    owner: Owner,
    replica: Replica,
    caplog: pytest.LogCaptureFixture,
    others: tuple[str, ...],
    text: str,
    route: tuple[str, ...],
) -> None:
    begin(loop, owner, replica)
    owner.stream.end()
    assert wait_until(partial(has_streams, owner, 2), TIMEOUT)
    owner.send(6, Position(START, 0), route=Route("root:1", others))
    assert wait_until(partial(has_streams, owner, 3), TIMEOUT)
    assert text in caplog.text
    assert replica.route == Route("owner:1", route), "the others notice it too"
    assert replica.position == Position(START, 5), "what a circle says is not used"


def test_the_owner_is_heard_only_if_all_on_the_way_hear_it(
    loop: FollowLoop,
    owner: Owner,
    replica: Replica,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow_loop, "LATELY_SECONDS", 500)
    caplog.set_level(logging.INFO)
    begin(loop, owner, replica)
    owner.send(5, content=b"", is_heard=False)
    assert wait_until(lambda: not loop.is_connected, TIMEOUT)
    assert not loop.heard_lately()
    owner.send(5, content=b"", is_heard=True)
    assert wait_until(lambda: loop.is_connected, TIMEOUT)
    assert levels(caplog, "the owner is lost to the server that is followed") == ["WARNING"]
    assert levels(caplog, "the owner is heard again") == ["INFO"]
    assert loop.heard_lately()
    owner.send(5, content=b"", age=500)
    assert wait_until(lambda: not loop.heard_lately(), TIMEOUT)
    assert loop.is_connected
    assert len(owner.held) == 1


def test_a_file_that_cannot_be_used_for_a_while_is_told_in_one_line(
    loop: FollowLoop, owner: Owner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    """Replace a certificate a moment before its key."""
    owner.problem = CannotStart("--follow-tls-key: is not the key")
    loop.start()
    assert wait_until(lambda: owner.connections == 2, TIMEOUT)
    owner.problem = None
    assert wait_until(lambda: len(owner.held) == 1, TIMEOUT)
    owner.send(5, Position(START, 0))
    assert wait_until(lambda: replica.position == Position(START, 5), TIMEOUT)
    (line,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert line.getMessage() == "the owner cannot be followed: --follow-tls-key: is not the key"
    assert line.exc_info is None
