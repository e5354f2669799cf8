"""Predictions and losses from snapshots: what the owner of a model and its followers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mnist37.losses import Evaluation
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.snapshot import Images, Snapshot
from mnist37_server.engine.read_model import Reading
from mnist37_server.observability.prediction_counts import PredictionCounts


class SnapshotReads(ABC):
    """The reads of a model, each of which is answered from the one snapshot that `at` returns.

    Attributes:
        predictions: the counts of the predictions so far.
    """

    def __init__(self) -> None:
        self.predictions = PredictionCounts()

    @abstractmethod
    def at(self, version: int | str | None = None, floor: Floor | None = None) -> Reading:
        """Return the snapshot of a version, and the start that the answer names."""

    @abstractmethod
    def _evaluate(self, snapshot: Snapshot, source: Split | Batch) -> Evaluation:
        """Return the loss and the accuracy of a snapshot."""

    def predict(
        self, images: Images, version: int | str | None = None, floor: Floor | None = None
    ) -> tuple[NDArray[np.float32], Position]:
        """Return the probability (N,) that each image of (N, 784) is a 3; and the position.

        Raises:
            NotFound, FailedPrecondition, Unavailable: as in `at`.
        """
        began = perf_counter()
        try:
            snapshot, server_start = self.at(version, floor)
            found = perf_counter()
            probabilities = snapshot.predict(images)
        except Exception:
            self.predictions.add_failure(perf_counter() - began)
            raise
        self.predictions.add(len(images), began, found, perf_counter())
        return probabilities, Position(server_start, snapshot.version)

    def predict_bytes(
        self,
        message: bytes,
        offset: int,
        count: int,
        version: int | str | None = None,
        floor: Floor | None = None,
    ) -> tuple[bytearray, Position]:
        """Return the probability that it is a 3, for each image in a message; and the position.

        Args:
            message: has `count` images of 784 bytes each.
            offset: of the first image, in bytes.
            count: the number of images.
            version: the version to predict with, or its tag; None for the newest.
            floor: the position that the model must have reached; None means any.

        Returns:
            `count` probabilities as float32, and the start and the version.

        Raises:
            NotFound, FailedPrecondition, Unavailable: as in `at`.
        """
        began = perf_counter()
        try:
            snapshot, server_start = self.at(version, floor)
            found = perf_counter()
            probabilities = snapshot.predict_bytes(message, offset, count)
        except Exception:
            self.predictions.add_failure(perf_counter() - began)
            raise
        self.predictions.add(count, began, found, perf_counter())
        return probabilities, Position(server_start, snapshot.version)

    def evaluate(
        self,
        source: Split | Batch,
        version: int | str | None = None,
        floor: Floor | None = None,
    ) -> tuple[Evaluation, Position]:
        """Return the loss and the accuracy on resident images or a caller's batch; the position.

        Raises:
            NotFound, FailedPrecondition, Unavailable: as in `at`.
            Exhausted: the device is out of memory.
            ShuttingDown: the device is lost.
        """
        snapshot, server_start = self.at(version, floor)
        return self._evaluate(snapshot, source), Position(server_start, snapshot.version)
