"""What the services ask of a model, so that something else than a live model can be served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mnist37.losses import Evaluation
from mnist37_server.domain.commands import Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import RunRecord, VersionRecord
from mnist37_server.domain.snapshot import Images, Snapshot
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.subscription import Subscription


class ReadModel(Protocol):
    """A model that is read: each answer is from one committed version, whole.

    A method that takes a version answers from the newest one where it is None, and raises NotFound
    where the version is not retained.
    """

    @property
    def device(self) -> object:
        """The device of the parameters; its str is what torch prints."""

    def at(self, version: int | None = None) -> Snapshot:
        """Return a version."""

    def predict(
        self, images: Images, version: int | None = None
    ) -> tuple[NDArray[np.float32], int]:
        """Return the probability (N,) that each image of (N, 784) is a 3; and the version."""

    def predict_bytes(
        self, message: bytes, start: int, count: int, version: int | None = None
    ) -> tuple[bytearray, int]:
        """Return the probabilities, as float32, of `count` images within a message; the version.

        Args:
            message: has `count` images of 784 bytes each.
            start: where in the message the first image begins.
            count: how many images.
            version: as above.
        """

    def evaluate(self, on: Split | Batch, version: int | None = None) -> tuple[Evaluation, int]:
        """Return the loss and the accuracy on a resident set or a caller's batch; the version."""

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the retained versions, newest first, at most `limit`."""

    def runs(self) -> Sequence[tuple[RunRecord, bool]]:
        """Return the retained runs, newest first, and whether each is under way."""

    def watch(self, number: int | None) -> RunWatch:
        """Return a look at a run, the newest where no number is given; raises NotFound."""


class WriteModel(Protocol):
    """A model that is written to."""

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        """Queue a write; see WriteQueue.submit."""

    def cancel(self, caller: Subscription) -> None:
        """Take note that a caller waits no longer; see WriteQueue.cancel."""
