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
from mnist37_server.domain.records import RequestRecord, RunCheckpoint, RunRecord
from mnist37_server.domain.results import Result, StepResult, WriteResult, values_of
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.committer import CommitBatch, Committer
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.subscription import PendingWrite
from mnist37_server.engine.write_queue import WriteQueue
from mnist37_server.errors import (
    Aborted,
    Refusal,
    version_not_retained,
)
from mnist37_server.storage.store import Store
from mnist37_server.training.device_errors import (
    device_lost_error,
    is_out_of_memory,
    out_of_memory_error,
)
from mnist37_server.training.trainer import SliceResult, Trainer, overflow_error

log = logging.getLogger(__name__)
AppliedWrite = tuple[PendingWrite, Result, Snapshot]  # a small write that is to be committed


def is_resident_step(write: PendingWrite) -> bool:
    """Whether it is a Step on the training set's next mini-batch."""
    return isinstance(write.request, Step) and write.request.batch is None


def group_consecutive_steps(writes: list[PendingWrite]) -> Iterator[list[PendingWrite]]:
    """The writes in their order: Steps that walk together, any other alone."""
    for walking, some in groupby(writes, is_resident_step):
        if walking:
            yield list(some)
        else:
            yield from ([write] for write in some)


class Writer:
    """The thread that does the writes.

    Args:
        queue: where they come from, and where their answers go.
        trainer: does the arithmetic; from now on only this writer's thread touches it.
        store: where commits go.
        feed: has the newest version, the trainer's too; is given each that is committed, before
            anybody is answered.
        delay: how long commits wait for more writes.
        stats: is told of each commit.
        on_device_lost: is called when the device is lost; has to close the queue.
    """

    def __init__(
        self,
        queue: WriteQueue,
        trainer: Trainer,
        store: Store,
        feed: SnapshotFeed,
        delay: CommitDelay,
        stats: EngineStats,
        on_device_lost: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._trainer = trainer
        self._store = store
        self._on_device_lost = on_device_lost
        self._computed = feed.newest  # the newest version, committed or on its way to be
        self._committer = Committer(store, feed, delay, stats)
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
                if self._committer.has_failed:
                    self._roll_back_to_committed()
                if isinstance(writes[0].request, Train):
                    self._train(writes[0], writes[0].request)
                else:
                    self._apply_group(writes)
            except BaseException as error:  # noqa: BLE001 - the callers must hear of it
                told = self._error_for_callers(error, writes[0].request)
                try:
                    self._roll_back_to_committed()
                except BaseException:  # noqa: BLE001 - likewise; it is logged there
                    self._on_device_lost()  # not even the parameters can be put there
                    told = device_lost_error()
                finally:
                    for write in writes:
                        self._queue.finish(write, error=told)

    def _error_for_callers(self, error: BaseException, request: Request) -> BaseException:
        """What the callers of a write that failed get; what they are not to see is logged."""
        if isinstance(error, Refusal):
            return error
        log.error("a write failed", exc_info=error)
        if is_out_of_memory(error):
            batch = request.batch if isinstance(request, Step) else None
            return out_of_memory_error(self._trainer.device, batch)
        return error

    def _roll_back_to_committed(self) -> None:
        """Waits for what is on its way to be committed, and goes on from what is."""
        self._computed = self._committer.drain()
        self._trainer.reset(self._computed)

    def _apply_group(self, writes: list[PendingWrite]) -> None:
        """Small writes: each makes a version, and all are one commit."""
        done: list[AppliedWrite] = []
        for together in group_consecutive_steps(writes):
            left = together
            while left := [write for write in left if not self._queue.refuse_if_unwanted(write)]:
                left = self._apply_all(left, done)
        if not done:
            return

        def committed() -> None:
            self._queue.finish_all([(write, result) for write, result, _ in done])

        def failed(error: BaseException) -> None:
            for write, *_ in done:
                self._queue.finish(write, error=error)

        records = [
            RequestRecord(write.request_id, write.fingerprint, snapshot.version, values_of(result))
            for write, result, snapshot in done
            if write.request_id is not None
        ]
        snapshots = [snapshot for *_, snapshot in done]
        self._committer.commit(CommitBatch(snapshots, records, None, committed, failed))

    def _apply_all(
        self, writes: list[PendingWrite], done: list[AppliedWrite]
    ) -> list[PendingWrite]:
        """Does writes up to the first that fails, which is told; returns those after it.

        Args:
            writes: that `in_one_go` put together.
            done: is given what was done.
        """
        first = writes[0]
        failed: BaseException | None = None
        answered: list[tuple[Result, Snapshot]] = []
        try:
            answered = (
                self._apply_steps(writes)
                if is_resident_step(first)
                else [self._apply(first.request)]
            )
            if len(answered) < len(writes):
                failed = overflow_error()
        except Exception as error:  # noqa: BLE001 - the caller must hear of it
            failed = self._error_for_callers(error, first.request)
        for write, (result, snapshot) in zip(writes, answered, strict=False):
            done.append((write, result, snapshot))
            self._computed = snapshot
        if failed is None:
            return []
        self._trainer.reset(self._computed)
        self._queue.finish(writes[len(answered)], error=failed)
        return writes[len(answered) + 1 :]

    def _apply_steps(self, writes: list[PendingWrite]) -> list[tuple[Result, Snapshot]]:
        """Steps on the next mini-batches, up to the first that overflowed."""
        steps = [write.request for write in writes if isinstance(write.request, Step)]
        done = self._trainer.step_through([step.sgd for step in steps])
        return [(StepResult(loss, snapshot.version), snapshot) for loss, snapshot in done]

    def _apply(self, request: Request) -> tuple[Result, Snapshot]:
        trainer = self._trainer
        if isinstance(request, Step):
            assert request.batch is not None
            loss = trainer.step_on(request.batch, request.sgd)
            return StepResult(loss, trainer.version), trainer.snapshot(Origin.STEP)
        if isinstance(request, Initialize):
            trainer.initialize(request)
            origin = Origin.INITIALIZE
        elif isinstance(request, Restore):
            self._roll_back_to_committed()  # the version may be on its way to be committed
            trainer.load_parameters(self._retained_snapshot(request.version).parameters)
            origin = Origin.RESTORE
        else:
            assert isinstance(request, Import)
            trainer.load_parameters(request.parameters)
            origin = Origin.IMPORT
        return WriteResult(trainer.version), trainer.snapshot(origin)

    def _retained_snapshot(self, version: int) -> Snapshot:
        snapshot = self._store.version(version)
        if snapshot is None:
            raise version_not_retained(version, self._computed.version)
        return snapshot

    def _train(self, write: PendingWrite, request: Train) -> None:
        """A run: an update after each of its parts, and where it is interrupted."""
        # The run's record has to be compared with the newest version that is committed.
        self._roll_back_to_committed()
        record = None if write.request_id is None else self._store.find(write.request_id)
        if record is not None and record.version != self._computed.version:
            raise Aborted(
                f"request_id: this run was interrupted at version {record.version} and the model is"
                f" at {self._computed.version} now: it cannot go on; begin another run",
                request_id=write.request_id,
                interrupted_at=record.version,
                newest=self._computed.version,
            )
        checkpoint = record.checkpoint if record else None
        if checkpoint is None:
            checkpoint = RunCheckpoint(0, 0, 0.0, self._store.next_run(), time.time())
        run = self._trainer.run(request, checkpoint)
        if self._queue.refuse_if_unwanted(write):
            return
        self._queue.begin_run(write, checkpoint.run, run.stop)
        for result in run.slices():
            unwanted = self._queue.is_unwanted(write)
            new = result.snapshots and result.snapshots[-1].version > self._computed.version
            if new and (result.progress or unwanted):
                if not self._commit_slice(write, request, run.checkpoint, result):
                    return
                if result.progress and result.progress[-1].epoch == request.epochs:
                    return
            if unwanted:
                self._roll_back_to_committed()
                if self._queue.refuse_if_unwanted(write):
                    return

    def _commit_slice(
        self, write: PendingWrite, request: Train, checkpoint: RunCheckpoint, result: SliceResult
    ) -> bool:
        """Commits how far a run has come, after some epochs or in the midst of one."""
        epochs, snapshots = result
        self._computed = snapshots[-1]
        version = self._computed.version
        last = epochs[-1] if epochs else None
        finished = last is not None and last.epoch == last.epochs

        def committed() -> None:
            if finished:
                self._queue.finish(write, *epochs)
            else:
                self._queue.publish_progress(write, *epochs)

        def failed(error: BaseException) -> None:
            self._queue.finish(write, error=error)

        records = []
        if write.request_id is not None:
            outcome = (values_of(last), None) if last and finished else (None, checkpoint)
            records.append(RequestRecord(write.request_id, write.fingerprint, version, *outcome))
        run = RunRecord(
            number=checkpoint.run,
            request_id=write.request_id,
            request=request,
            started_at=checkpoint.started_at,
            version=version,
            finished=finished,
            last=last,
        )
        batch = CommitBatch(snapshots, records, (run, epochs), committed, failed)
        return self._committer.commit(batch, urgent=finished or not epochs)
