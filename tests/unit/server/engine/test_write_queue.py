"""Tests of the write queue: the batches that it gives the writer, and the commit delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from mnist37_server.domain.commands.commands import Request, Step
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.records import RequestRecord
from mnist37_server.domain.results import StepResult
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.engine.writes.lanes import GROUP_MAX
from mnist37_server.engine.writes.subscription import PendingWrite
from mnist37_server.engine.writes.write_queue import WriteQueue

from mnist37.optimizer import Sgd

LONG = 60.0  # seconds: longer than any wait in these tests
SOON = LONG / 2
A_MOMENT = 0.05


class QueueWithWriter:
    """A write queue, and a thread that takes from it as the writer does."""

    def __init__(self, delay_max_seconds: float = LONG) -> None:
        self.delay = CommitDelay(max_seconds=delay_max_seconds, slow_seconds=2 * LONG)
        self.queue = WriteQueue(lambda _: None, EngineStats(), delay=self.delay)
        self._writer = ThreadPoolExecutor(1)

    def answer_steps(self, clients: int) -> None:
        """Submit a Step of each of so many clients, and answer them together."""
        self.delay.commit_seconds = 0.0
        for _ in range(clients):
            self.queue.submit(Step())
        while write := self.queue.depth() and self.queue.take():
            self.queue.finish_all([(done, StepResult(0.1, 1)) for done in write])

    def start_take(self, commit_seconds: float = LONG) -> Future[list[Request] | None]:
        """Start a take from the queue, after a commit that took so many seconds.

        Returns:
            A future of the requests that are taken, or of None if the queue was closed.
        """
        self.delay.commit_seconds = commit_seconds
        has_begun = threading.Event()

        def take() -> list[Request] | None:
            has_begun.set()
            writes: list[PendingWrite] | None = self.queue.take()
            return None if writes is None else [write.request for write in writes]

        future = self._writer.submit(take)
        has_begun.wait()
        return future


@pytest.fixture
def writes() -> Iterator[QueueWithWriter]:
    writes = QueueWithWriter()
    yield writes
    writes.queue.close()


def test_the_delay_waits_for_clients_that_were_just_answered(writes: QueueWithWriter) -> None:
    writes.answer_steps(3)
    taking = writes.start_take()
    for _ in range(2):
        writes.queue.submit(Step())
        time.sleep(A_MOMENT)
        assert not taking.done()
    writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * 3


def test_the_delay_also_waits_for_clients_that_were_pending_at_the_last_answer(
    writes: QueueWithWriter,
) -> None:
    for _ in range(2):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    writes.queue.submit(Step())
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    taking = writes.start_take()
    for _ in range(2):
        time.sleep(A_MOMENT)
        assert not taking.done()
        writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * 3


def test_the_delay_is_no_longer_than_a_commit(writes: QueueWithWriter) -> None:
    writes.answer_steps(2)
    writes.queue.submit(Step())
    assert writes.start_take(A_MOMENT).result(SOON)
    writes.queue.submit(Step())
    assert writes.start_take().result(SOON)  # no second delay, since one client did not return


def test_the_delay_ends_although_writes_keep_coming() -> None:
    writes = QueueWithWriter(delay_max_seconds=4 * A_MOMENT)
    writes.answer_steps(GROUP_MAX)
    taking = writes.start_take(20 * A_MOMENT)
    for _ in range(GROUP_MAX):
        writes.queue.submit(Step())
        time.sleep(A_MOMENT / 5)
    assert 1 < len(taking.result(SOON) or []) < GROUP_MAX
    writes.queue.close()


def test_a_single_client_has_no_delay(writes: QueueWithWriter) -> None:
    for _ in range(3):
        writes.answer_steps(1)
        writes.queue.submit(Step())
        assert writes.start_take().result(SOON)


def test_the_delay_ends_when_a_group_is_full(writes: QueueWithWriter) -> None:
    for _ in range(GROUP_MAX):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    for _ in range(5):
        writes.queue.submit(Step())
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    taking = writes.start_take()
    for _ in range(GROUP_MAX - 5):
        writes.queue.submit(Step())
    assert taking.result(SOON) == [Step()] * GROUP_MAX


def test_a_run_ends_the_delay(writes: QueueWithWriter) -> None:
    writes.answer_steps(3)
    taking = writes.start_take()
    writes.queue.submit(Step())
    writes.queue.submit(Train(epochs=1))
    assert taking.result(SOON) == [Step()]
    assert writes.start_take().result(SOON) == [Train(epochs=1)]


def test_a_run_that_came_during_a_commit_has_no_delay(writes: QueueWithWriter) -> None:
    for _ in range(3):
        writes.queue.submit(Step())
    under_way = writes.queue.take() or []
    writes.queue.submit(Train(epochs=1))
    writes.queue.finish_all([(write, StepResult(0.1, 1)) for write in under_way])
    assert writes.start_take().result(SOON) == [Train(epochs=1)]


def test_a_write_that_is_cancelled_during_the_delay_is_not_done(
    writes: QueueWithWriter,
) -> None:
    writes.answer_steps(2)
    taking = writes.start_take(A_MOMENT)
    writes.queue.cancel(writes.queue.submit(Step()))
    time.sleep(2 * A_MOMENT)
    assert not taking.done()
    writes.queue.submit(Step(sgd=Sgd(0.5)))
    assert taking.result(SOON) == [Step(sgd=Sgd(0.5))]


def test_closing_ends_the_wait(writes: QueueWithWriter) -> None:
    writes.answer_steps(2)
    taking = writes.start_take()
    writes.queue.submit(Step())
    writes.queue.close()
    assert taking.result(SOON) == []


def test_on_a_slow_disk_there_is_no_delay(writes: QueueWithWriter) -> None:
    writes.answer_steps(2)
    writes.queue.submit(Step())
    assert writes.start_take(3 * LONG).result(SOON) == [Step()]


def test_a_record_is_looked_up_without_the_lock() -> None:
    """Let a look-up hang, as on a disk: other callers submit, cancel and ask meanwhile."""
    is_looking, go = threading.Event(), threading.Event()

    def find(request_id: str) -> None:
        if request_id == "slow":
            is_looking.set()
            go.wait(SOON)

    queue = WriteQueue(find, EngineStats())
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(queue.submit, Step(), "slow")
        assert is_looking.wait(SOON)
        caller = queue.submit(Step(), "quick")
        queue.cancel(caller)
        assert queue.depth() == 0
        go.set()
        slow.result(SOON)
    assert queue.depth() == 1


def test_a_write_that_finishes_during_the_look_up_is_not_done_again() -> None:
    """Commit the write between the look-up and the lock: the look-up has to be repeated."""
    records: dict[str, RequestRecord] = {}
    looks: list[str] = []

    def find(request_id: str) -> RequestRecord | None:
        record = records.get(request_id)
        looks.append(request_id)
        if len(looks) == 1:
            queue.submit(Step(), "one")
            writes = queue.take()
            assert writes is not None
            (write,) = writes
            records["one"] = RequestRecord("one", write.fingerprint, 7, (0.25, 7))
            queue.finish(write, StepResult(0.25, 7))
        return record

    queue = WriteQueue(find, EngineStats())
    assert queue.submit(Step(), "one").only(StepResult) == StepResult(0.25, 7)
    assert queue.depth() == 0
