"""The live model: what readers see of it, always a committed version, and where writes go in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mnist37.examples import Device
from mnist37.losses import Evaluation
from mnist37.training import Datasets
from mnist37_server.domain.commands import Initialize, Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import ModelStats, RunRecord, VersionRecord
from mnist37_server.domain.snapshot import Images, Origin, Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.subscription import Subscription
from mnist37_server.engine.write_queue import PENDING_CALLERS_MAX, WriteQueue
from mnist37_server.engine.writer import Writer
from mnist37_server.errors import version_not_retained
from mnist37_server.storage.store import Store
from mnist37_server.training.device_errors import device_lost_error
from mnist37_server.training.evaluator import Evaluator
from mnist37_server.training.trainer import Trainer

log = logging.getLogger(__name__)


class LiveModel:
    """One model that is read by many threads while a writer changes it.

    A reader takes the current snapshot, one reference, and never waits: a snapshot never changes,
    and a commit replaces it whole.

    Args:
        datasets: the resident images.
        device: where the arithmetic of training and of losses is done.
        store: where the model was left, and where it is kept; closed with the model.
        max_callers: how many may wait for writes at a time.
    """

    def __init__(
        self,
        datasets: Datasets,
        device: Device,
        store: Store,
        max_callers: int = PENDING_CALLERS_MAX,
    ) -> None:
        self._store = store
        trainer = Trainer(datasets, device)
        snapshot = store.latest()
        if snapshot is None:
            trainer.initialize(Initialize())
            snapshot = replace(trainer.snapshot(Origin.INITIALIZE), version=0)
            store.commit([snapshot], [])
        trainer.reset(snapshot)
        self.feed = SnapshotFeed(snapshot)
        self._trainer = trainer  # the writer's alone; here only its counts are looked at
        self._predicted = 0
        self._predicting = threading.Lock()  # guards the one above
        self.engine_stats = EngineStats()
        self._evaluator = Evaluator(datasets, device, self._mark_device_lost)
        self.on_device_lost: Callable[[], None] = lambda: None  # called when the device is lost
        self._device_lost = False
        delay = CommitDelay()
        self._queue = WriteQueue(store.find, self.engine_stats, max_callers, delay)
        self._writer = Writer(
            self._queue, trainer, store, self.feed, delay, self.engine_stats, self._mark_device_lost
        )

    @property
    def device(self) -> Device:
        """Where the model is trained."""
        return self._evaluator.device

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        """Queue a write, join the one that has this id, or repeat its first answer.

        Args:
            request: what to do.
            request_id: makes it safe to submit the request again.
            caller: who is to be answered; one without a deadline, if none is given.

        Returns:
            The caller, to be iterated over for the answers.

        Raises:
            AlreadyExists: the id stands for another request.
            Exhausted: too many callers wait.
            ShuttingDown: no more writes are taken.
        """
        return self._queue.submit(request, request_id, caller)

    def cancel(self, caller: Subscription) -> None:
        """Take note that a caller waits no longer: it cancelled, or its deadline passed."""
        self._queue.cancel(caller)

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the retained versions, newest first, at most `limit`."""
        return self._store.versions(limit)

    def at(self, version: int | None = None) -> Snapshot:
        """The newest committed version, or a kept one.

        Raises:
            NotFound: this version is not retained.
        """
        snapshot = self.feed.newest
        if version is None or version == snapshot.version:
            return snapshot
        retained = self._store.version(version)
        if retained is None:
            raise version_not_retained(version, snapshot.version)
        return retained

    def predict(
        self, images: Images, version: int | None = None
    ) -> tuple[NDArray[np.float32], int]:
        """The probability (N,), for each image of (N, 784), that it is a 3; and the version.

        Raises:
            NotFound: this version is not retained.
        """
        snapshot = self.at(version)
        probabilities = snapshot.predict(images)
        with self._predicting:
            self._predicted += len(images)
        return probabilities, snapshot.version

    def predict_bytes(
        self, message: bytes, start: int, count: int, version: int | None = None
    ) -> tuple[bytearray, int]:
        """The same, as float32, for the `count` images that a message has from `start` on."""
        snapshot = self.at(version)
        probabilities = snapshot.predict_bytes(message, start, count)
        with self._predicting:
            self._predicted += count
        return probabilities, snapshot.version

    def evaluate(self, on: Split | Batch, version: int | None = None) -> tuple[Evaluation, int]:
        """The loss and the accuracy on a resident set or on a caller's batch; and the version.

        Raises:
            NotFound: this version is not retained.
            Exhausted: there is no room on the device.
            ShuttingDown: the device is lost.
        """
        snapshot = self.at(version)
        if self._device_lost:
            raise device_lost_error()
        return self._evaluator.evaluate(snapshot, on), snapshot.version

    def runs(self) -> list[tuple[RunRecord, bool]]:
        """The runs that are kept, newest first, and whether each is under way."""
        under_way = self._queue.running_run()
        return [(run, run.number == under_way) for run in self._store.runs()]

    def watch(self, number: int | None) -> RunWatch:
        """A run to look at, the newest where no number is given.

        Raises:
            NotFound: there is none, or none of this number is kept.
        """
        return RunWatch(self._queue, self._store, number)

    def model_stats(self) -> ModelStats:
        """How it stands, for who watches."""
        return ModelStats(
            version=self.at().version,
            steps=self._trainer.steps_done,
            images_trained=self._trainer.images_done,
            images_predicted=self._predicted,
            pending_writes=self._queue.depth(),
            runs_in_progress=self._queue.running_run() is not None,
            state_bytes=self._store.size(),
        )

    def _mark_device_lost(self) -> None:
        """For good: CUDA gives a process no second device; called where an error is handled."""
        log.exception("the device is lost: no more writes are taken; start the server again")
        self._device_lost = True
        self._queue.close(device_lost_error)
        self.on_device_lost()

    def stop_writing(self) -> None:
        """Stops the run at a step's end, commits it, and refuses all further writes.

        Readers are answered on.
        """
        self._writer.close()

    def close(self) -> None:
        """Ends all use of the state, after `stop_writing`."""
        self._store.close()
