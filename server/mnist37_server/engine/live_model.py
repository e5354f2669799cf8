"""The live model: reads of committed versions, and the entry for writes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mnist37.examples import Device
from mnist37.losses import Evaluation
from mnist37.training import Datasets
from mnist37_server.domain.commands.commands import Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor
from mnist37_server.domain.records import (
    ModelStats,
    QueuedRun,
    RunRecord,
    TagRecord,
    VersionRecord,
)
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.floors import FloorGate
from mnist37_server.engine.followers import FOLLOWERS_MAX, Followers
from mnist37_server.engine.lookup import find_version
from mnist37_server.engine.opening import open_model
from mnist37_server.engine.read_model import Reading
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.snapshot_reads import SnapshotReads
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.engine.writes.subscription import Subscription
from mnist37_server.engine.writes.tagger import Tagger
from mnist37_server.engine.writes.write_queue import PENDING_CALLERS_MAX, WriteQueue
from mnist37_server.engine.writes.writer import Writer
from mnist37_server.storage.failures import state_lost_error
from mnist37_server.storage.store import Store
from mnist37_server.training.device_errors import device_lost_error
from mnist37_server.training.evaluator import Evaluator
from mnist37_server.training.trainer import Trainer

log = logging.getLogger(__name__)


class LiveModel(SnapshotReads):
    """One model that many threads read while one thread writes to it.

    Reads take no lock: a reader takes one reference, to the newest snapshot. A snapshot never
    changes; a commit replaces the reference.

    Writes go through the queue to the writer's thread, in order of arrival. For each, the order is:
    commit, publish the snapshot, answer the caller.

    Args:
        datasets: the resident images.
        device: what computes steps and losses.
        store: has the newest version, and gets the commits; `close` closes it.
        max_callers: how many callers may wait for writes at a time.
        max_followers: how many followers there may be.
    """

    def __init__(
        self,
        datasets: Datasets,
        device: Device,
        store: Store,
        max_callers: int = PENDING_CALLERS_MAX,
        max_followers: int = FOLLOWERS_MAX,
    ) -> None:
        super().__init__()
        self._store = store
        trainer = Trainer(datasets, device)
        self.feed = open_model(store, trainer)
        self._floors = FloorGate(self.feed)
        self._followers = Followers(self.feed, max_followers)
        self._trainer = trainer  # only the writer's thread uses it; here its counts are read
        self.engine_stats = EngineStats()
        self._evaluator = Evaluator(lambda: datasets, device, self._mark_device_lost)
        self.on_writes_lost: Callable[[], None] = lambda: None  # set by app
        self._is_device_lost = False  # never set back; read without a lock
        delay = CommitDelay()
        self._queue = WriteQueue(store.find, self.engine_stats, max_callers, delay)
        store.on_lost = self._mark_state_lost
        self._writer = Writer(
            self._queue, trainer, store, self.feed, delay, self.engine_stats, self._mark_device_lost
        )
        self._tagger = Tagger(self._queue, store)

    @property
    def device(self) -> Device:
        """Return the device that trains the model."""
        return self._evaluator.device

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        """Queue a write, join the pending write that has this request_id, or repeat its result.

        Args:
            request: the write.
            request_id: makes it safe to submit the request again.
            caller: the subscription for the results; None makes one without a deadline.

        Returns:
            The subscription, which yields the results.

        Raises:
            AlreadyExists: the request_id belongs to another request.
            Exhausted: too many callers wait.
            ShuttingDown: the server takes no more writes.
        """
        return self._queue.submit(request, request_id, caller)

    def cancel(self, caller: Subscription) -> None:
        """End the wait of a caller that has cancelled or whose deadline has passed."""
        self._queue.cancel(caller)

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the retained versions, newest first, at most `limit`."""
        return self._store.versions(limit)

    def version_numbers(self) -> list[int]:
        """Return the numbers of the retained versions, newest first."""
        return [record.version for record in self._store.versions(2**32 - 1)]

    @property
    def followers(self) -> Followers:
        """Return the readers that follow the model."""
        return self._followers

    @property
    def start(self) -> int:
        """Return the id of the server's start."""
        return self.feed.current[1].start

    def at(self, version: int | str | None = None, floor: Floor | None = None) -> Reading:
        """Return the newest committed version, or a retained one, and the server's start.

        Args:
            version: its number, or a tag; None for the newest.
            floor: the position that the model must have reached; None means any.

        Raises:
            NotFound: this version is not retained, or there is no such tag.
            FailedPrecondition: the floor is in no history of this model.
            Unavailable: the model has not reached the floor in time.
        """
        snapshot, lineage = self.feed.current
        if floor is not None and not lineage.has_reached(floor, snapshot.version):
            self._floors.wait(floor)
            snapshot, lineage = self.feed.current
        if version is not None and version != snapshot.version:
            snapshot = find_version(self._store, version, snapshot.version)
        return Reading(snapshot, lineage.start)

    def _evaluate(self, snapshot: Snapshot, source: Split | Batch) -> Evaluation:
        if self._is_device_lost:
            raise device_lost_error()
        return self._evaluator.evaluate(snapshot, source)

    def tags(self) -> list[TagRecord]:
        """Return the tags of callers by name, then those of the best versions, newest run first."""
        return self._store.tags()

    def queued_runs(self) -> list[QueuedRun]:
        """Return the runs that wait for their turn, the next one first."""
        return self._queue.queued_runs()

    def runs(self) -> list[tuple[RunRecord, bool]]:
        """Return the retained runs, newest first, and whether each is under way."""
        running_number = self._queue.running_run()
        return [(run, run.number == running_number) for run in self._store.runs()]

    def watch(self, number: int | None) -> RunWatch:
        """Watch a run.

        Args:
            number: of the run; None for the newest.

        Raises:
            NotFound: there is no run yet, or this one is not retained.
        """
        return RunWatch(self._queue, self._store, number)

    def model_stats(self) -> ModelStats:
        """Return the model's stats, for the metrics."""
        followers = self._followers.records()
        return ModelStats(
            version=self.feed.newest.version,
            steps=self._trainer.steps_done,
            images_trained=self._trainer.images_done,
            images_predicted=self.predictions.images,
            pending_writes=self._queue.depth(),
            runs_in_progress=self._queue.running_run() is not None,
            state_bytes=self._store.size(),
            state_log_bytes=self._store.log_size(),
            followers=len(followers),
            follower_lag_seconds=max((record.age for record in followers), default=0.0),
        )

    def _mark_device_lost(self) -> None:
        """Refuse all further writes, since the device is lost; call it while an error is handled.

        There is no way back: CUDA does not let the process use the device again.
        """
        log.exception("the device is lost: no more writes are taken; start the server again")
        self._is_device_lost = True
        self._queue.close(device_lost_error)
        self.on_writes_lost()

    def _mark_state_lost(self) -> None:
        """Refuse all further writes, since a file of the state was deleted or replaced."""
        log.critical(
            "a file of the state folder was deleted or replaced: no more writes are taken; start"
            " the server again"
        )
        self._queue.close(state_lost_error)
        self.on_writes_lost()

    def stop_writing(self) -> None:
        """Stop a run under way after its current step, commit it, and refuse all further writes.

        Reads go on.
        """
        self._writer.close()
        self._tagger.close()

    def close(self) -> None:
        """Close the store; call `stop_writing` first."""
        self._store.close()
