"""The live model: what readers see of it, always a committed version, and where writes go in."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray

from mnist37.losses import Evaluation
from mnist37.training import Examples, Sets, evaluate, examples_on
from mnist37_server.errors import NotFound, Reason
from mnist37_server.history import KEPT_VERSIONS, RunRecord
from mnist37_server.requests import Batch, Initialize
from mnist37_server.snapshot import Origin, Snapshot
from mnist37_server.state import State
from mnist37_server.trainer import Trainer
from mnist37_server.watch import Watch
from mnist37_server.write_queue import MAX_CALLERS, WriteQueue
from mnist37_server.writer import Writer


class Split(Enum):
    """The two sets of images that the server holds."""

    TRAIN = "train"
    VALID = "valid"


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
        self._queue = WriteQueue(state.find, max_callers)
        self._writer = Writer(self._queue, trainer, state, snapshot, self._publish)
        self.submit = self._queue.submit
        self.leave = self._queue.leave
        self.versions = state.versions

    def _publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def at(self, version: int | None = None) -> Snapshot:
        """The newest committed version, or a kept one.

        Raises:
            NotFound: this version is not kept.
        """
        snapshot = self._snapshot
        if version is None or version == snapshot.version:
            return snapshot
        kept = self._state.version(version)
        if kept is None:
            raise NotFound(
                f"version: {version} is not kept; the model is at {snapshot.version}, and kept are"
                f" the newest {KEPT_VERSIONS:,} versions that an epoch or another write ended on",
                Reason.VERSION_NOT_KEPT,
                version=version,
                newest=snapshot.version,
            )
        return kept

    def predict(
        self, images: NDArray[np.uint8], version: int | None = None
    ) -> tuple[NDArray[np.float32], int]:
        """The probability (N,), for each image of (N, 784), that it is a 3; and the version.

        Raises:
            NotFound: this version is not kept.
        """
        snapshot = self.at(version)
        return snapshot.predict(images), snapshot.version

    def evaluate(self, on: Split | Batch, version: int | None = None) -> tuple[Evaluation, int]:
        """The loss and the accuracy on a resident set or on a caller's batch; and the version.

        Raises:
            NotFound: this version is not kept.
        """
        snapshot = self.at(version)
        parameters = torch.tensor(snapshot.parameters, device=self.device)
        return evaluate(parameters, self._examples(on)), snapshot.version

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

    def _examples(self, on: Split | Batch) -> Examples:
        if isinstance(on, Batch):
            return examples_on(self.device, on.images, on.targets)
        return self._sets.train if on is Split.TRAIN else self._sets.valid

    def stop_writing(self) -> None:
        """Stops the run at its next step, commits it, and refuses all further writes.

        Readers are answered on.
        """
        self._writer.close()

    def close(self) -> None:
        """Ends all use of the state, after `stop_writing`."""
        self._state.close()
