"""What the writer takes from the queue, and for whom it waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from mnist37_server.domain.commands import Request, Step, Train
from mnist37_server.domain.results import StepResult
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.subscription import PendingWrite
from mnist37_server.engine.write_queue import GROUP_MAX, WriteQueue

from mnist37.optimizer import Sgd

LONG = 60.0  # seconds in which no test ends
SOON = LONG / 2
A_MOMENT = 0.05


class Writes:
    """A queue, from which a thread takes as a writer does."""

    def __init__(self, most: float = LONG) -> None:
        self.delay = CommitDelay(max_seconds=most, slow_seconds=2 * LONG)
        self.queue = WriteQueue(lambda _: None, EngineStats(), delay=self.delay)
        self._writer = ThreadPoolExecutor(1)

    def answered(self, clients: int) -> None:
        """So many step together, and have just been answered."""
        self.delay.commit_seconds = 0.0
        for _ in range(clients):
            self.queue.submit(Step())
        while write := self.queue.depth() and self.queue.take():
            self.queue.finish_all([(done, StepResult(0.1, 1)) for done in write])

    def taking(self, commit_seconds: float = LONG) -> Future[list[Request] | None]:
        """What is taken after a commit that took so long; it is under way when this returns."""
        self.delay.commit_seconds = commit_seconds
        begun = threading.Event()

        def take() -> list[Request] | None:
            begun.set()
            taken: list[PendingWrite] | None = self.queue.take()
            return None if taken is None else [write.request for write in taken]

        future = self._writer.submit(take)
        begun.wait()
        return future


@pytest.fixture
def writes() -> Iterator[Writes]:
    writes = Writes()
    yield writes
    writes.queue.close()


def test_those_who_were_just_answered_are_waited_for(writes: Writes) -> None:
    writes.answered(3)
    taking = writes.taking()
    for _ in range(2):
        writes.queue.submit(Step())
        time.sleep(A_MOMENT)
        assert not taking.done()
    writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * 3


def test_those_who_wait_while_others_are_answered_are_waited_for_with_them(writes: Writes) -> None:
    for _ in range(2):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    writes.queue.submit(Step())
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    taking = writes.taking()
    for _ in range(2):
        time.sleep(A_MOMENT)
        assert not taking.done()
        writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * 3


def test_nobody_is_waited_for_any_longer_than_it_pays(writes: Writes) -> None:
    writes.answered(2)
    writes.queue.submit(Step())
    assert writes.taking(A_MOMENT).result(SOON)
    writes.queue.submit(Step())
    assert writes.taking().result(SOON)  # nor again, once somebody did not come


def test_the_delay_ends_even_if_somebody_comes_again_and_again() -> None:
    writes = Writes(most=4 * A_MOMENT)
    writes.answered(GROUP_MAX)
    taking = writes.taking(20 * A_MOMENT)
    for _ in range(GROUP_MAX):
        writes.queue.submit(Step())
        time.sleep(A_MOMENT / 5)
    assert 1 < len(taking.result(SOON) or []) < GROUP_MAX
    writes.queue.close()


def test_one_who_steps_alone_waits_for_nobody(writes: Writes) -> None:
    for _ in range(3):
        writes.answered(1)
        writes.queue.submit(Step())
        assert writes.taking().result(SOON)


def test_no_more_are_waited_for_than_are_taken_together(writes: Writes) -> None:
    for _ in range(GROUP_MAX):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    for _ in range(5):
        writes.queue.submit(Step())
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    taking = writes.taking()
    for _ in range(GROUP_MAX - 5):
        writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * GROUP_MAX


def test_a_run_waits_for_no_steps_that_might_come(writes: Writes) -> None:
    writes.answered(3)
    taking = writes.taking()
    writes.queue.submit(Step())
    writes.queue.submit(Train(epochs=1))
    assert taking.result(SOON) == [Step()]
    assert writes.taking().result(SOON) == [Train(epochs=1)]


def test_a_run_that_came_during_a_commit_waits_for_nobody(writes: Writes) -> None:
    for _ in range(3):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    writes.queue.submit(Train(epochs=1))
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    assert writes.taking().result(SOON) == [Train(epochs=1)]


def test_a_write_whose_caller_leaves_while_others_are_waited_for_is_not_done(
    writes: Writes,
) -> None:
    writes.answered(2)
    taking = writes.taking(A_MOMENT)
    writes.queue.cancel(writes.queue.submit(Step()))
    time.sleep(2 * A_MOMENT)
    assert not taking.done()
    writes.queue.submit(Step(sgd=Sgd(0.5)))
    assert taking.result(SOON) == [Step(sgd=Sgd(0.5))]


def test_closing_ends_the_wait(writes: Writes) -> None:
    writes.answered(2)
    taking = writes.taking()
    writes.queue.submit(Step())
    writes.queue.close()
    assert taking.result(SOON) is None


def test_on_a_slow_disk_nobody_is_waited_for(writes: Writes) -> None:
    writes.answered(2)
    writes.queue.submit(Step())
    assert writes.taking(3 * LONG).result(SOON) == [Step()]
