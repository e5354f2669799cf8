"""Tests of reads at a follower: which versions the owner is asked for, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.floors import FloorGate
from mnist37_server.errors import FailedPrecondition, Reason, Unavailable
from mnist37_server.follower import followed_model
from mnist37_server.follower.followed_model import FollowedModel
from mnist37_server.follower.replica import Replica, Update
from mnist37_server.training.evaluator import Evaluator

from mnist37.host import Host

OLD, NEW, OTHER = 11, 12, 99  # ids of starts
CONTENT = bytes(3140)


class Loop:
    """A connection that stands."""

    is_connected = True

    def heard_lately(self) -> bool:
        return True


def snapshot(version: int) -> Snapshot:
    return Snapshot(version, CONTENT, 0, Origin.IMPORT)


def receive(replica: Replica, start: int, version: int, *starts: Position) -> None:
    replica.receive(Update(Position(start, version), CONTENT, Origin.STEP, None, starts or ()), 0.0)


def followed(
    fetch: Callable[[int | str, Position], tuple[Snapshot, int]],
) -> tuple[FollowedModel, Replica]:
    replica = Replica()
    receive(replica, OLD, 5, Position(OLD, 3))
    loop: Any = Loop()
    datasets: Any = None
    evaluator = Evaluator(datasets, Host(), lambda: None)
    return FollowedModel(replica, fetch, loop, evaluator), replica


def test_the_owner_is_asked_once_for_a_version_and_with_what_is_held() -> None:
    asked = []

    def fetch(version: int | str, held: Position) -> tuple[Snapshot, int]:
        asked.append((version, held))
        return snapshot(1), OLD

    model, _ = followed(fetch)
    for _ in range(2):
        assert model.at(1).snapshot.version == 1
        assert model.at("tag").snapshot.version == 1
    held = Position(OLD, 5)
    assert asked == [(1, held), ("tag", held), ("tag", held)]
    assert model.version_numbers() == [5, 1]


def test_a_version_of_another_start_is_answered_with_that_and_not_held() -> None:
    model, _ = followed(lambda version, held: (snapshot(4), NEW))  # noqa: ARG005
    assert model.at(4) == (snapshot(4), NEW)
    assert model.version_numbers() == [5]


def test_a_version_that_comes_after_a_reset_is_not_held() -> None:
    replica: Replica

    def fetch(version: int | str, held: Position) -> tuple[Snapshot, int]:  # noqa: ARG001
        receive(replica, OTHER, 2, Position(OTHER, 0))
        return snapshot(1), OLD

    model, replica = followed(fetch)
    assert model.at(1) == (snapshot(1), OLD)
    assert model.version_numbers() == [2]


def test_the_floor_holds_for_the_history_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, replica = followed(lambda version, held: (snapshot(1), OLD))  # noqa: ARG005

    def pass_and_reset(self: object, floor: Floor) -> None:  # noqa: ARG001
        # The gate lets the read pass, and then the history is replaced.
        monkeypatch.undo()
        receive(replica, OTHER, 9, Position(OTHER, 0))

    monkeypatch.setattr(FloorGate, "wait", pass_and_reset)
    with pytest.raises(FailedPrecondition, match="not in this model's history"):
        model.at(floor=Floor(OLD, 6))


def test_a_bounded_number_of_reads_waits_for_the_owner() -> None:
    waiting, go_on = threading.Semaphore(0), threading.Event()

    def fetch(version: int | str, held: Position) -> tuple[Snapshot, int]:  # noqa: ARG001
        waiting.release()
        go_on.wait(10)
        return snapshot(1), OLD

    model, _ = followed(fetch)
    threads = [
        threading.Thread(target=model.at, args=("tag",)) for _ in range(followed_model.FETCHES_MAX)
    ]
    for thread in threads:
        thread.start()
        assert waiting.acquire(timeout=10)
    with pytest.raises(Unavailable, match="64 reads wait for the owner") as refused:
        model.at("tag")
    assert refused.value.reason is Reason.OWNER_UNREACHABLE
    assert model.at().snapshot.version == 5  # others do not wait
    go_on.set()
    for thread in threads:
        thread.join()
    assert model.at("tag").snapshot.version == 1
