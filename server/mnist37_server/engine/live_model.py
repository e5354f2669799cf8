"""The live model: what readers see of it, always a committed version, and where writes go in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mnist37.examples import Examples
from mnist37.losses import Evaluation
from mnist37.training import Sets, evaluate, examples_on
from mnist37_server.domain.commands import Initialize
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import Figures, RunRecord
from mnist37_server.domain.snapshot import Images, Origin, Snapshot
from mnist37_server.engine.run_watch import Watch
from mnist37_server.engine.stats import Journal
from mnist37_server.engine.write_queue import MAX_CALLERS, WriteQueue
from mnist37_server.engine.writer import Writer
from mnist37_server.errors import version_not_retained
from mnist37_server.storage.store import State
from mnist37_server.training.device_errors import device_full, device_lost, lost, no_room
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
        self, sets: Sets, device: torch.device, state: State, max_callers: int = MAX_CALLERS
    ) -> None:
        self.device = device
        self._sets = sets
        self._state = state
        trainer = Trainer(sets, device)
        snapshot = state.latest()
        if snapshot is None:
            trainer.initialize(Initialize())
            snapshot = replace(trainer.snapshot(Origin.INITIALIZE), version=0)
            state.commit([snapshot], [])
        trainer.reset(snapshot)
        self._snapshot = snapshot
        self._trainer = trainer  # the writer's alone; here only its counts are looked at
        self._predicted = 0
        self._predicting = threading.Lock()  # guards the one above
        self.journal = Journal()
        self._queue = WriteQueue(state.find, self.journal, max_callers)
        self.when_lost: Callable[[], None] = lambda: None  # called when the device is lost
        self._device_lost = False
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._writer = Writer(
            self._queue, trainer, state, snapshot, self._publish, self.journal, self._lose
        )
        self.submit = self._queue.submit
        self.leave = self._queue.leave
        self.versions = state.versions

    def _publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def at(self, version: int | None = None) -> Snapshot:
        """The newest committed version, or a kept one.

        Raises:
            NotFound: this version is not retained.
        """
        snapshot = self._snapshot
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
        try:
            with self._beside():
                parameters = torch.tensor(snapshot.parameters, device=self.device)
                return evaluate(parameters, self._examples(on)), snapshot.version
        except Exception as error:
            if no_room(error):
                log.warning("GetLoss failed", exc_info=error)
                batch = on if isinstance(on, Batch) else None
                raise device_full(self.device, batch) from error
            if lost(self.device):
                self._lose()
                raise device_lost() from error
            raise

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

    def _examples(self, on: Split | Batch) -> Examples:
        if isinstance(on, Batch):
            return examples_on(self.device, on.images, on.targets)
        return self._sets.train if on is Split.TRAIN else self._sets.valid

    def _beside(self) -> AbstractContextManager[object]:
        """For what the device is to do beside the training, and not after it."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

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
