"""Predictions and losses from snapshots: what the owner of a model and its followers share."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from mnist37.losses import Evaluation
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.snapshot import Images, Snapshot
from mnist37_server.engine.read_model import Reading


class SnapshotReads(ABC):
    """The reads of a model, each of which is answered from the one snapshot that `at` returns.

    Attributes:
        images_predicted: the number of images predicted so far.
    """

    def __init__(self) -> None:
        # guarded by _images_predicted_lock: images_predicted
        self._images_predicted_lock = threading.Lock()
        self.images_predicted = 0

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
        snapshot, server_start = self.at(version, floor)
        probabilities = snapshot.predict(images)
        with self._images_predicted_lock:
            self.images_predicted += len(images)
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
        snapshot, server_start = self.at(version, floor)
        probabilities = snapshot.predict_bytes(message, offset, count)
        with self._images_predicted_lock:
            self.images_predicted += count
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
