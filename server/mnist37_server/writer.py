"""One write at a time, in the order they came, each exactly once.

Callers submit a request and are given a subscription to its answers. One thread takes the writes in
turn, lets the trainer do them, commits, and only then shows the new version to readers and answers.
Steps and Initializes that wait together are committed together; a run commits after epochs, as
often as keeps the disk's share of the time small.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from mnist37_server.errors import (
    Aborted,
    AlreadyExists,
    CallerLeft,
    Exhausted,
    NotFound,
    Refused,
    ShuttingDown,
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
    answer_to,
    fingerprint,
)
from mnist37_server.snapshot import Origin, Snapshot
from mnist37_server.state import Record, RunPlace, State
from mnist37_server.subscription import Subscription, Write
from mnist37_server.trainer import Trainer

log = logging.getLogger(__name__)

MAX_CALLERS = 256  # who may wait for a write at a time
MAX_TOGETHER = 64  # Steps and Initializes in one commit
COMMIT_SHARE = 0.05  # of the time of a run that its commits may take
MAX_COMMIT_INTERVAL = 0.5  # seconds, however slow the disk is


class Writer:
    """The queue of writes and the thread that does them.

    Args:
        trainer: does the arithmetic; from now on only this writer's thread touches it.
        state: where commits go.
        committed: the newest version; the trainer's too.
        publish: is given each committed snapshot before anybody is answered.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: State,
        committed: Snapshot,
        publish: Callable[[Snapshot], None],
    ) -> None:
        self._trainer = trainer
        self._state = state
        self._publish = publish
        self._committed = committed
        self._queue: deque[Write] = deque()
        self._named: dict[str, Write] = {}  # queued or under way, by request_id
        self._waiting: dict[Subscription, Write] = {}
        self._running: Write | None = None  # the run under way
        self._closing = False
        self._changed = threading.Condition()  # guards the five above
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def submit(
        self, request: Request, request_id: str | None = None, deadline: float | None = None
    ) -> Subscription:
        """Queues a write, joins the one that has this id, or repeats its first answer.

        Args:
            request: what to do.
            request_id: makes it safe to submit the request again.
            deadline: on time.monotonic's clock; a write that nobody waits for is not begun.

        Raises:
            AlreadyExists: the id stands for another request.
            Exhausted: too many callers wait.
            ShuttingDown: no more writes are taken.
        """
        mark = fingerprint(request)
        caller = Subscription(deadline)
        with self._changed:
            write = None if request_id is None else self._named.get(request_id)
            # A write leaves _named after its commit, so an id that is in neither place is new.
            record = None if request_id is None or write else self._state.find(request_id)
            earlier = write or record
            if earlier is not None and earlier.fingerprint != mark:
                raise AlreadyExists(
                    f"request_id: {request_id!r} was used before with another method or other"
                    " values; nothing is applied"
                )
            if record is not None and record.answer is not None:
                caller.put(answer_to(request, record.answer))
                caller.end()
                return caller
            if self._closing:
                raise _shutting_down()
            if len(self._waiting) >= MAX_CALLERS:
                raise Exhausted(f"{MAX_CALLERS} callers wait for writes already; try again later")
            if write is None:
                write = Write(request, request_id, mark)
                self._queue.append(write)
                if request_id is not None:
                    self._named[request_id] = write
                self._changed.notify()
            write.callers.append(caller)
            self._waiting[caller] = write
        return caller

    def leave(self, caller: Subscription) -> None:
        """The caller waits no longer: it cancelled, or its deadline passed.

        When the last caller leaves, a write that has not begun is dropped, and a run stops.
        """
        caller.end(CallerLeft("the caller left"))
        with self._changed:
            write = self._waiting.pop(caller, None)
            if write is not None:
                write.callers.remove(caller)
                if not write.callers and write in self._queue:
                    self._queue.remove(write)
                    self._finish(write)

    def running(self) -> int | None:
        """The number of the run under way."""
        running = self._running
        return None if running is None else running.run

    def watch(self, run: int) -> Subscription | None:
        """The epochs of a run from now on; None if it is not under way."""
        with self._changed:
            if self._running is None or self._running.run != run:
                return None
            watcher = Subscription()
            self._running.watchers.append(watcher)
            return watcher

    def unwatch(self, watcher: Subscription) -> None:
        """Ends what `watch` began."""
        watcher.end()
        with self._changed:
            if self._running is not None and watcher in self._running.watchers:
                self._running.watchers.remove(watcher)

    def close(self) -> None:
        """Takes no more writes, stops the run at its next step, commits, and ends the thread.

        Writes that have not begun are refused with ShuttingDown.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (writes := self._take()) is not None:
            try:
                self._do(writes)
            except Refused as error:
                self._fail(writes, error)
            except BaseException as error:
                log.exception("a write failed")
                self._fail(writes, error)

    def _take(self) -> list[Write] | None:
        """The next writes to commit together: a run, or all the small ones up to the next run."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                while self._queue:
                    self._finish(self._queue.popleft(), error=_shutting_down())
                return None
            writes = [self._queue.popleft()]
            while (
                self._queue
                and len(writes) < MAX_TOGETHER
                and not isinstance(writes[0].request, Train)
                and not isinstance(self._queue[0].request, Train)
            ):
                writes.append(self._queue.popleft())
            return writes

    def _do(self, writes: list[Write]) -> None:
        if isinstance(writes[0].request, Train):
            self._train(writes[0], writes[0].request)
        else:
            self._update(writes)

    def _update(self, writes: list[Write]) -> None:
        """Steps and Initializes: each makes a version, one commit holds them all."""
        done: list[tuple[Write, Snapshot, Answer]] = []
        before = self._committed
        for write in writes:
            if not write.wanted:
                self._finish(write, error=_nobody_waits())
                continue
            try:
                answer, before = self._apply(write.request)
            except Refused as error:
                self._trainer.reset(before)
                self._finish(write, error=error)
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
            self._finish(write, answer)

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
            raise _nobody_waits()
        with self._changed:
            write.run = place.run
            self._running = write
        pending: list[tuple[Snapshot, Progress | None]] = []  # None: in the midst of an epoch
        due = 0.0
        for progress in run.steps():
            # Without this a reader that waits for the interpreter's lock can wait 5 ms for it.
            os.sched_yield()
            stop = self._closing or not write.wanted
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
                if self._tell(write, answers, last=finished):
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

    def _tell(self, write: Write, answers: list[Progress], *, last: bool) -> bool:
        """Hands a run's committed progress to its callers; returns whether the run ends here."""
        with self._changed:
            if last:
                self._finish(write, *answers)
                return True
            for reader in write.callers + write.watchers:
                reader.put(*answers)
            if self._closing:
                self._finish(write, error=_shutting_down())
                return True
            # A caller may have joined while the run was being stopped; then it goes on.
            if not write.wanted:
                self._finish(write, error=_nobody_waits())
                return True
        return False

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
            self._finish(write, error=error)

    def _finish(self, write: Write, *answers: Answer, error: BaseException | None = None) -> None:
        """Gives the write's callers the last they will hear of it, and forgets it."""
        with self._changed:
            if write.request_id is not None and self._named.get(write.request_id) is write:
                del self._named[write.request_id]
            if self._running is write:
                self._running = None
            for caller in write.callers:
                caller.put(*answers)
                caller.end(error)
                del self._waiting[caller]
            for watcher in write.watchers:
                watcher.put(*answers)
                watcher.end()
            write.callers.clear()
            write.watchers.clear()


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down; what was committed is kept")


def _nobody_waits() -> CallerLeft:
    return CallerLeft("nobody waited for it any more")
