"""The writer: the thread that executes the writes in the order of arrival, each exactly once.

It takes writes from the queue, computes them with the trainer, and gives the changes to the
committer. The committer commits them, then publishes the newest snapshot, and only then answers the
callers. After a write that fails, the trainer goes back to the version before that write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby

from mnist37_server.domain.commands.commands import Import, Initialize, Request, Restore, Step
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.records import RequestRecord, RunCheckpoint, RunRecord
from mnist37_server.domain.results import Result, StepResult, WriteResult, values_of
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.lookup import find_version
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.engine.writes.committer import CommitBatch, Committer
from mnist37_server.engine.writes.subscription import PendingWrite
from mnist37_server.engine.writes.write_queue import WriteQueue
from mnist37_server.errors import Aborted, Refusal
from mnist37_server.storage.store import Store
from mnist37_server.training.device_errors import (
    device_lost_error,
    is_out_of_memory,
    out_of_memory_error,
)
from mnist37_server.training.run import Run, SliceResult
from mnist37_server.training.trainer import Trainer, overflow_error

log = logging.getLogger(__name__)
AppliedWrite = tuple[PendingWrite, Result, Snapshot]  # a small write, computed, not committed


def is_resident_step(write: PendingWrite) -> bool:
    """Return whether a write is a Step on the training set's next mini-batch."""
    return isinstance(write.request, Step) and write.request.batch is None


def group_consecutive_steps(writes: list[PendingWrite]) -> Iterator[list[PendingWrite]]:
    """Yield the writes in their order: consecutive resident Steps together, others one by one."""
    for are_resident_steps, group in groupby(writes, is_resident_step):
        if are_resident_steps:
            yield list(group)
        else:
            yield from ([write] for write in group)


class Writer:
    """The thread that executes the writes, and its committer.

    Args:
        queue: gives the writes, and takes their results.
        trainer: does the arithmetic; from now on only this writer's thread uses it.
        store: what commits go to; gives the retained versions and the runs.
        feed: has the newest version, which is the trainer's too; publishes each committed version.
        delay: the policy for group commit.
        stats: counts the commits.
        on_device_lost: called when the device is lost; must close the queue.
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
        self._newest = feed.newest  # the newest version that is computed, committed or pending
        self._committer = Committer(store, feed, delay, stats)
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse further writes, stop a run after its step, commit it, and end the threads."""
        self._queue.close()
        self._thread.join()
        self._committer.close()

    def _work(self) -> None:
        while writes := self._queue.take():
            try:
                if self._committer.has_failed:
                    self._roll_back_to_committed()
                if isinstance(writes[0].request, Train):
                    self._train(writes[0], writes[0].request)
                else:
                    self._apply_group(writes)
            except BaseException as error:  # noqa: BLE001 - any error must reach the callers
                error_for_callers = self._error_for_callers(error, writes[0].request)
                try:
                    self._roll_back_to_committed()
                except BaseException:  # noqa: BLE001 - _on_device_lost logs it
                    self._on_device_lost()  # the device does not even take the parameters
                    error_for_callers = device_lost_error()
                finally:
                    for write in writes:
                        self._queue.finish(write, error=error_for_callers)

    def _error_for_callers(self, error: BaseException, request: Request) -> BaseException:
        """Return the error for the callers of a write that failed; log it if it is no refusal."""
        if isinstance(error, Refusal):
            return error
        log.error("a write failed", exc_info=error)
        if is_out_of_memory(error):
            batch = request.batch if isinstance(request, Step) else None
            return out_of_memory_error(self._trainer.device, batch)
        return error

    def _roll_back_to_committed(self) -> None:
        """Wait until no batch is pending, and go on from the committed version."""
        self._newest = self._committer.drain()
        self._trainer.reset(self._newest)

    def _apply_group(self, writes: list[PendingWrite]) -> None:
        """Execute small writes: each makes a version of its own, and all go into one batch."""
        applied: list[AppliedWrite] = []
        for group in group_consecutive_steps(writes):
            rest = group
            while rest := [write for write in rest if not self._queue.refuse_if_unwanted(write)]:
                rest = self._apply_all(rest, applied)
        if not applied:
            return

        def on_committed() -> None:
            self._queue.finish_all([(write, result) for write, result, _ in applied])

        def on_failed(error: BaseException) -> None:
            for write, *_ in applied:
                self._queue.finish(write, error=error)

        records = [
            RequestRecord(write.request_id, write.fingerprint, snapshot.version, values_of(result))
            for write, result, snapshot in applied
            if write.request_id is not None
        ]
        snapshots = [snapshot for *_, snapshot in applied]
        self._committer.commit(CommitBatch(snapshots, records, None, on_committed, on_failed))

    def _apply_all(
        self, writes: list[PendingWrite], applied: list[AppliedWrite]
    ) -> list[PendingWrite]:
        """Compute writes up to the first that fails, refuse that one, and return the rest.

        Args:
            writes: a group from `group_consecutive_steps`.
            applied: the writes that are computed are appended to it.
        """
        first = writes[0]
        failure: BaseException | None = None
        outputs: list[tuple[Result, Snapshot]] = []
        try:
            outputs = (
                self._apply_steps(writes)
                if is_resident_step(first)
                else [self._apply(first.request)]
            )
            if len(outputs) < len(writes):
                failure = overflow_error()
        except Exception as error:  # noqa: BLE001 - any error must reach the caller
            failure = self._error_for_callers(error, first.request)
        for write, (result, snapshot) in zip(writes, outputs, strict=False):
            applied.append((write, result, snapshot))
            self._newest = snapshot
        if failure is None:
            return []
        self._trainer.reset(self._newest)
        self._queue.finish(writes[len(outputs)], error=failure)
        return writes[len(outputs) + 1 :]

    def _apply_steps(self, writes: list[PendingWrite]) -> list[tuple[Result, Snapshot]]:
        """Compute Steps on the next mini-batches, up to the first that overflows."""
        steps = [write.request for write in writes if isinstance(write.request, Step)]
        outputs = self._trainer.step_through([step.sgd for step in steps])
        return [(StepResult(loss, snapshot.version), snapshot) for loss, snapshot in outputs]

    def _apply(self, request: Request) -> tuple[Result, Snapshot]:
        """Compute one small write other than a Step on a resident mini-batch."""
        trainer = self._trainer
        if isinstance(request, Step):
            assert request.batch is not None
            loss = trainer.step_on(request.batch, request.sgd)
            return StepResult(loss, trainer.version), trainer.snapshot(Origin.STEP)
        if isinstance(request, Initialize):
            trainer.initialize(request)
            origin = Origin.INITIALIZE
        elif isinstance(request, Restore):
            self._roll_back_to_committed()  # the version may still be pending
            snapshot = find_version(self._store, request.version, self._newest.version)
            trainer.load_parameters(snapshot.parameters)
            origin = Origin.RESTORE
        else:
            assert isinstance(request, Import)
            trainer.load_parameters(request.parameters)
            origin = Origin.IMPORT
        return WriteResult(trainer.version), trainer.snapshot(origin)

    def _train(self, write: PendingWrite, request: Train) -> None:
        """Execute a run: commit each slice that ends an epoch, and the point of an interruption."""
        # The run's record is compared with the newest version, so that must be committed.
        self._roll_back_to_committed()
        record = None if write.request_id is None else self._store.find(write.request_id)
        if record is not None and record.version != self._newest.version:
            raise Aborted(
                f"request_id: this run was interrupted at version {record.version} and the model is"
                f" at {self._newest.version} now: it cannot go on; begin another run",
                request_id=write.request_id,
                interrupted_at=record.version,
                newest=self._newest.version,
            )
        checkpoint = record.checkpoint if record else None
        if checkpoint is None:
            checkpoint = RunCheckpoint(0, 0, 0.0, self._store.next_run(), time.time())
        run = Run(self._trainer, request, checkpoint)
        if self._queue.refuse_if_unwanted(write):
            return
        self._queue.begin_run(write, checkpoint.run, run.stop)
        for result in run.slices():
            is_unwanted = self._queue.is_unwanted(write)
            has_new = result.snapshots and result.snapshots[-1].version > self._newest.version
            if has_new and (result.progress or is_unwanted):
                if not self._commit_slice(write, request, run.checkpoint, result):
                    return
                if result.progress and result.progress[-1].ends_run:
                    return
            if is_unwanted:
                self._roll_back_to_committed()
                if self._queue.refuse_if_unwanted(write):
                    return

    def _commit_slice(
        self, write: PendingWrite, request: Train, checkpoint: RunCheckpoint, result: SliceResult
    ) -> bool:
        """Commit a run as far as its checkpoint; return whether the run can go on.

        Args:
            write: the Train.
            request: its request.
            checkpoint: the run's checkpoint after the slice.
            result: the slice's epochs and snapshots; no epochs if the slice ended within the first.
        """
        epochs, snapshots = result
        self._newest = snapshots[-1]
        version = self._newest.version
        last = epochs[-1] if epochs else None
        is_finished = last is not None and last.ends_run

        def on_committed() -> None:
            if is_finished:
                self._queue.finish(write, *epochs)
            else:
                self._queue.publish_progress(write, *epochs)

        def on_failed(error: BaseException) -> None:
            self._queue.finish(write, error=error)

        records = []
        if write.request_id is not None:
            outcome = (values_of(last), None) if last and is_finished else (None, checkpoint)
            records.append(RequestRecord(write.request_id, write.fingerprint, version, *outcome))
        run = RunRecord(
            number=checkpoint.run,
            request_id=write.request_id,
            request=request,
            started_at=checkpoint.started_at,
            version=version,
            finished=is_finished,
            last=last,
            best=checkpoint.best,
        )
        batch = CommitBatch(snapshots, records, (run, epochs), on_committed, on_failed)
        return self._committer.commit(batch, urgent=is_finished or not epochs)
