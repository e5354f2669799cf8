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
from mnist37.training import Sets
from mnist37_server.domain.commands import Initialize, Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import Figures, RunRecord, Version
from mnist37_server.domain.snapshot import Images, Origin, Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.run_watch import Watch
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import Journal
from mnist37_server.engine.subscription import Subscription
from mnist37_server.engine.write_queue import MAX_CALLERS, WriteQueue
from mnist37_server.engine.writer import Writer
from mnist37_server.errors import version_not_retained
from mnist37_server.storage.store import State
from mnist37_server.training.device_errors import device_lost
from mnist37_server.training.evaluator import Evaluator
from mnist37_server.training.trainer import Trainer

log = logging.getLogger(__name__)


class LiveModel:
    """One model that is read by many threads while a writer changes it.

    A reader takes the current snapshot, one reference, and never waits: a snapshot never changes,
    and a commit replaces it whole.

    Args:
        sets: the resident images.
        device: where the arithmetic of training and of losses is done.
        state: where the model was left, and where it is kept; closed with the model.
        max_callers: how many may wait for writes at a time.
    """

    def __init__(
        self, sets: Sets, device: Device, state: State, max_callers: int = MAX_CALLERS
    ) -> None:
        self._state = state
        trainer = Trainer(sets, device)
        snapshot = state.latest()
        if snapshot is None:
            trainer.initialize(Initialize())
            snapshot = replace(trainer.snapshot(Origin.INITIALIZE), version=0)
            state.commit([snapshot], [])
        trainer.reset(snapshot)
        self.feed = SnapshotFeed(snapshot)
        self._trainer = trainer  # the writer's alone; here only its counts are looked at
        self._predicted = 0
        self._predicting = threading.Lock()  # guards the one above
        self.journal = Journal()
        self._evaluator = Evaluator(sets, device, self._lose)
        self.when_lost: Callable[[], None] = lambda: None  # called when the device is lost
        self._device_lost = False
        delay = CommitDelay()
        self._queue = WriteQueue(state.find, self.journal, max_callers, delay)
        self._writer = Writer(
            self._queue, trainer, state, self.feed, delay, self.journal, self._lose
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

    def leave(self, caller: Subscription) -> None:
        """Take note that a caller waits no longer: it cancelled, or its deadline passed."""
        self._queue.leave(caller)

    def versions(self, limit: int) -> list[Version]:
        """Return the retained versions, newest first, at most `limit`."""
        return self._state.versions(limit)

    def at(self, version: int | None = None) -> Snapshot:
        """The newest committed version, or a kept one.

        Raises:
            NotFound: this version is not retained.
        """
        snapshot = self.feed.newest
        if version is None or version == snapshot.version:
            return snapshot
        kept = self._state.version(version)
        if kept is None:
            raise version_not_retained(version, snapshot.version)
        return kept

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
            raise device_lost()
        return self._evaluator.evaluate(snapshot, on), snapshot.version

    def runs(self) -> list[tuple[RunRecord, bool]]:
        """The runs that are kept, newest first, and whether each is under way."""
        under_way = self._queue.running()
        return [(run, run.number == under_way) for run in self._state.runs()]

    def watch(self, number: int | None) -> Watch:
        """A run to look at, the newest where no number is given.

        Raises:
            NotFound: there is none, or none of this number is kept.
        """
        return Watch(self._queue, self._state, number)

    def figures(self) -> Figures:
        """How it stands, for who watches."""
        return Figures(
            version=self.at().version,
            steps=self._trainer.steps_done,
            images_trained=self._trainer.images_done,
            images_predicted=self._predicted,
            waiting=self._queue.depth(),
            running=self._queue.running() is not None,
            state_bytes=self._state.size(),
        )

    def _lose(self) -> None:
        """For good: CUDA gives a process no second device; called where an error is handled."""
        log.exception("the device is lost: no more writes are taken; start the server again")
        self._device_lost = True
        self._queue.close(device_lost)
        self.when_lost()

    def stop_writing(self) -> None:
        """Stops the run at a step's end, commits it, and refuses all further writes.

        Readers are answered on.
        """
        self._writer.close()

    def close(self) -> None:
        """Ends all use of the state, after `stop_writing`."""
        self._state.close()
