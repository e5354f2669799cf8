"""One write at a time, in the order they came, each exactly once.

One thread takes the writes from the queue, lets the trainer do them, commits, and only then shows
the new version to readers and answers. Small writes that wait together are committed together; a
run commits after epochs, as often as keeps the disk's share of the time small.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from mnist37_server.errors import (
    Aborted,
    NotFound,
    Refused,
)
from mnist37_server.history import RunRecord
from mnist37_server.requests import (
    Answer,
    Import,
    Initialize,
    Progress,
    Request,
    Restore,
    Step,
    Stepped,
    Train,
    Written,
)
from mnist37_server.snapshot import Origin, Snapshot
from mnist37_server.state import Record, RunPlace, State
from mnist37_server.subscription import Write
from mnist37_server.trainer import Trainer
from mnist37_server.write_queue import WriteQueue, nobody_waits

log = logging.getLogger(__name__)

COMMIT_SHARE = 0.05  # of the time of a run that its commits may take
MAX_COMMIT_INTERVAL = 0.5  # seconds, however slow the disk is


class Writer:
    """The thread that does the writes.

    Args:
        queue: where they come from, and where their answers go.
        trainer: does the arithmetic; from now on only this writer's thread touches it.
        state: where commits go.
        committed: the newest version; the trainer's too.
        publish: is given each committed snapshot before anybody is answered.
    """

    def __init__(
        self,
        queue: WriteQueue,
        trainer: Trainer,
        state: State,
        committed: Snapshot,
        publish: Callable[[Snapshot], None],
    ) -> None:
        self._queue = queue
        self._trainer = trainer
        self._state = state
        self._committed = committed
        self._publish = publish
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more writes, stops the run at its next step, commits, and ends the thread."""
        self._queue.close()
        self._thread.join()

    def _work(self) -> None:
        while (writes := self._queue.take()) is not None:
            try:
                self._do(writes)
            except Refused as error:
                self._fail(writes, error)
            except BaseException as error:
                log.exception("a write failed")
                self._fail(writes, error)

    def _do(self, writes: list[Write]) -> None:
        if isinstance(writes[0].request, Train):
            self._train(writes[0], writes[0].request)
        else:
            self._update(writes)

    def _update(self, writes: list[Write]) -> None:
        """Small writes: each makes a version, one commit holds them all."""
        done: list[tuple[Write, Snapshot, Answer]] = []
        before = self._committed
        for write in writes:
            if not write.wanted:
                self._queue.finish(write, error=nobody_waits())
                continue
            try:
                answer, before = self._apply(write.request)
            except Refused as error:
                self._trainer.reset(before)
                self._queue.finish(write, error=error)
            else:
                done.append((write, before, answer))
        if not done:
            return
        records = [
            Record(write.request_id, write.fingerprint, snapshot.version, answer)
            for write, snapshot, answer in done
            if write.request_id is not None
        ]
        self._commit([snapshot for _, snapshot, _ in done], records)
        for write, _, answer in done:
            self._queue.finish(write, answer)

    def _apply(self, request: Request) -> tuple[Answer, Snapshot]:
        trainer = self._trainer
        if isinstance(request, Step):
            loss = trainer.step(request)
            return Stepped(loss, trainer.version), trainer.snapshot(Origin.STEP)
        if isinstance(request, Initialize):
            trainer.initialize(request)
            origin = Origin.INITIALIZE
        elif isinstance(request, Restore):
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
            raise NotFound(f"version: {version} is not kept; ListVersions names those that are")
        return snapshot

    def _train(self, write: Write, request: Train) -> None:
        """A run: commits every few epochs, at its end, and where it is cut off."""
        record = None if write.request_id is None else self._state.find(write.request_id)
        if record is not None and record.version != self._committed.version:
            raise Aborted(
                f"request_id: this run was cut off at version {record.version} and the model is at"
                f" {self._committed.version} now: it cannot go on; begin another run"
            )
        place = record.place if record else None
        if place is None:
            place = RunPlace(0, 0, 0, 0.0, self._state.next_run(), time.time())
        run = self._trainer.run(request, place)
        if not write.wanted:
            raise nobody_waits()
        self._queue.begin_run(write, place.run)
        pending: list[tuple[Snapshot, Progress | None]] = []  # None: in the midst of an epoch
        due = 0.0
        for progress in run.steps():
            # Without this a reader that waits for the interpreter's lock can wait 5 ms for it.
            os.sched_yield()
            stop = self._queue.closing or not write.wanted
            finished = progress is not None and progress.epoch == progress.epochs
            if progress is None and not stop:
                continue
            pending.append((self._trainer.snapshot(Origin.TRAIN, place.run), progress))
            if stop or finished or time.monotonic() >= due:
                began = time.monotonic()
                answers = [progress for _, progress in pending if progress is not None]
                snapshots = [snapshot for snapshot, _ in pending]
                self._commit_run(write, request, run.place, snapshots, answers, finished)
                ended = time.monotonic()
                due = ended + min((ended - began) / COMMIT_SHARE, MAX_COMMIT_INTERVAL)
                pending = []
                if self._queue.tell(write, answers, last=finished):
                    return

    def _commit_run(
        self,
        write: Write,
        request: Train,
        place: RunPlace,
        snapshots: list[Snapshot],
        epochs: list[Progress],
        finished: bool,
    ) -> None:
        version, last = snapshots[-1].version, epochs[-1] if epochs else None
        record = Record(
            write.request_id or "",
            write.fingerprint,
            version,
            last if finished else None,
            None if finished else place,
        )
        run = RunRecord(place.run, write.request_id, request, place.began, version, finished, last)
        records = [] if write.request_id is None else [record]
        self._commit(snapshots, records, (run, epochs))

    def _commit(
        self,
        snapshots: list[Snapshot],
        records: list[Record],
        run: tuple[RunRecord, list[Progress]] | None = None,
    ) -> None:
        self._state.commit(snapshots, records, run)
        self._committed = snapshots[-1]
        self._publish(self._committed)

    def _fail(self, writes: list[Write], error: BaseException) -> None:
        """Goes back to what is committed."""
        self._trainer.reset(self._committed)
        for write in writes:
            self._queue.finish(write, error=error)
