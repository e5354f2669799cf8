"""One write at a time, in the order they came, each exactly once.

One thread takes the writes from the queue, lets the trainer do them, and has what they changed
committed; then readers see it, and callers are answered. A write that cannot be done leaves the
trainer as it was before it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby

from mnist37_server.domain.commands import Import, Initialize, Request, Restore, Step, Train
from mnist37_server.domain.records import Record, RunPlace, RunRecord
from mnist37_server.domain.results import Answer, StepResult, Written, to_values
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.committer import Committer, Update
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import Journal
from mnist37_server.engine.subscription import Write
from mnist37_server.engine.write_queue import WriteQueue
from mnist37_server.errors import (
    Aborted,
    Refused,
    version_not_retained,
)
from mnist37_server.storage.store import State
from mnist37_server.training.device_errors import device_full, device_lost, no_room
from mnist37_server.training.trainer import Ended, Trainer, overflow

log = logging.getLogger(__name__)
Done = tuple[Write, Answer, Snapshot]  # a small write that is to be committed


def walks(write: Write) -> bool:
    """Whether it is a Step on the training set's next mini-batch."""
    return isinstance(write.request, Step) and write.request.batch is None


def in_one_go(writes: list[Write]) -> Iterator[list[Write]]:
    """The writes in their order: Steps that walk together, any other alone."""
    for walking, some in groupby(writes, walks):
        if walking:
            yield list(some)
        else:
            yield from ([write] for write in some)


class Writer:
    """The thread that does the writes.

    Args:
        queue: where they come from, and where their answers go.
        trainer: does the arithmetic; from now on only this writer's thread touches it.
        state: where commits go.
        feed: has the newest version, the trainer's too; is given each that is committed, before
            anybody is answered.
        delay: how long commits wait for more writes.
        journal: is told of each commit.
        lose: is called when the device is lost; has to close the queue.
    """

    def __init__(
        self,
        queue: WriteQueue,
        trainer: Trainer,
        state: State,
        feed: SnapshotFeed,
        delay: CommitDelay,
        journal: Journal,
        lose: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._trainer = trainer
        self._state = state
        self._lose = lose
        self._computed = feed.newest  # the newest version, committed or on its way to be
        self._committer = Committer(state, feed, delay, journal)
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more writes, stops the run at a step's end, commits, and ends the threads."""
        self._queue.close()
        self._thread.join()
        self._committer.close()

    def _work(self) -> None:
        while (writes := self._queue.take()) is not None:
            try:
                if self._committer.broken:
                    self._settle()
                if isinstance(writes[0].request, Train):
                    self._train(writes[0], writes[0].request)
                else:
                    self._update(writes)
            except BaseException as error:  # noqa: BLE001 - the callers must hear of it
                told = self._told(error, writes[0].request)
                try:
                    self._settle()
                except BaseException:  # noqa: BLE001 - likewise; it is logged there
                    self._lose()  # not even the parameters can be put there
                    told = device_lost()
                finally:
                    for write in writes:
                        self._queue.finish(write, error=told)

    def _told(self, error: BaseException, request: Request) -> BaseException:
        """What the callers of a write that failed get; what they are not to see is logged."""
        if isinstance(error, Refused):
            return error
        log.error("a write failed", exc_info=error)
        if no_room(error):
            batch = request.batch if isinstance(request, Step) else None
            return device_full(self._trainer.device, batch)
        return error

    def _settle(self) -> None:
        """Waits for what is on its way to be committed, and goes on from what is."""
        self._computed = self._committer.settle()
        self._trainer.reset(self._computed)

    def _update(self, writes: list[Write]) -> None:
        """Small writes: each makes a version, and all are one commit."""
        done: list[Done] = []
        for together in in_one_go(writes):
            left = together
            while left := [write for write in left if not self._queue.refuses(write)]:
                left = self._do(left, done)
        if not done:
            return

        def committed() -> None:
            self._queue.finish_all([(write, answer) for write, answer, _ in done])

        def failed(error: BaseException) -> None:
            for write, *_ in done:
                self._queue.finish(write, error=error)

        records = [
            Record(write.request_id, write.fingerprint, snapshot.version, to_values(answer))
            for write, answer, snapshot in done
            if write.request_id is not None
        ]
        snapshots = [snapshot for *_, snapshot in done]
        self._committer.commit(Update(snapshots, records, None, committed, failed))

    def _do(self, writes: list[Write], done: list[Done]) -> list[Write]:
        """Does writes up to the first that fails, which is told; returns those after it.

        Args:
            writes: that `in_one_go` put together.
            done: is given what was done.
        """
        first = writes[0]
        failed: BaseException | None = None
        answered: list[tuple[Answer, Snapshot]] = []
        try:
            answered = self._walk(writes) if walks(first) else [self._apply(first.request)]
            if len(answered) < len(writes):
                failed = overflow()
        except Exception as error:  # noqa: BLE001 - the caller must hear of it
            failed = self._told(error, first.request)
        for write, (answer, snapshot) in zip(writes, answered, strict=False):
            done.append((write, answer, snapshot))
            self._computed = snapshot
        if failed is None:
            return []
        self._trainer.reset(self._computed)
        self._queue.finish(writes[len(answered)], error=failed)
        return writes[len(answered) + 1 :]

    def _walk(self, writes: list[Write]) -> list[tuple[Answer, Snapshot]]:
        """Steps on the next mini-batches, up to the first that overflowed."""
        steps = [write.request for write in writes if isinstance(write.request, Step)]
        done = self._trainer.walk([step.sgd for step in steps])
        return [(StepResult(loss, snapshot.version), snapshot) for loss, snapshot in done]

    def _apply(self, request: Request) -> tuple[Answer, Snapshot]:
        trainer = self._trainer
        if isinstance(request, Step):
            assert request.batch is not None
            loss = trainer.step_on(request.batch, request.sgd)
            return StepResult(loss, trainer.version), trainer.snapshot(Origin.STEP)
        if isinstance(request, Initialize):
            trainer.initialize(request)
            origin = Origin.INITIALIZE
        elif isinstance(request, Restore):
            self._settle()  # the version may be on its way to be committed
            trainer.adopt(self._kept(request.version).parameters)
            origin = Origin.RESTORE
        else:
            assert isinstance(request, Import)
            trainer.adopt(request.parameters)
            origin = Origin.IMPORT
        return Written(trainer.version), trainer.snapshot(origin)

    def _kept(self, version: int) -> Snapshot:
        snapshot = self._state.version(version)
        if snapshot is None:
            raise version_not_retained(version, self._computed.version)
        return snapshot

    def _train(self, write: Write, request: Train) -> None:
        """A run: an update after each of its parts, and where it is interrupted."""
        self._settle()  # what is remembered of the run must be compared with what is committed
        record = None if write.request_id is None else self._state.find(write.request_id)
        if record is not None and record.version != self._computed.version:
            raise Aborted(
                f"request_id: this run was interrupted at version {record.version} and the model is"
                f" at {self._computed.version} now: it cannot go on; begin another run",
                request_id=write.request_id,
                interrupted_at=record.version,
                newest=self._computed.version,
            )
        place = record.place if record else None
        if place is None:
            place = RunPlace(0, 0, 0.0, self._state.next_run(), time.time())
        run = self._trainer.run(request, place)
        if self._queue.refuses(write):
            return
        self._queue.begin_run(write, place.run, run.stop)
        for ended in run.parts():
            unwanted = self._queue.unwanted(write)
            new = ended.snapshots and ended.snapshots[-1].version > self._computed.version
            if new and (ended.progress or unwanted):
                if not self._commit(write, request, run.place, ended):
                    return
                if ended.progress and ended.progress[-1].epoch == request.epochs:
                    return
            if unwanted:
                self._settle()
                if self._queue.refuses(write):
                    return

    def _commit(self, write: Write, request: Train, place: RunPlace, ended: Ended) -> bool:
        """Commits how far a run has come, after some epochs or in the midst of one."""
        epochs, snapshots = ended
        self._computed = snapshots[-1]
        version = self._computed.version
        last = epochs[-1] if epochs else None
        finished = last is not None and last.epoch == last.epochs

        def committed() -> None:
            if finished:
                self._queue.finish(write, *epochs)
            else:
                self._queue.tell(write, *epochs)

        def failed(error: BaseException) -> None:
            self._queue.finish(write, error=error)

        records = []
        if write.request_id is not None:
            outcome = (to_values(last), None) if last and finished else (None, place)
            records.append(Record(write.request_id, write.fingerprint, version, *outcome))
        run = RunRecord(
            number=place.run,
            request_id=write.request_id,
            request=request,
            started_at=place.started_at,
            version=version,
            finished=finished,
            last=last,
        )
        update = Update(snapshots, records, (run, epochs), committed, failed)
        return self._committer.commit(update, urgent=finished or not epochs)
