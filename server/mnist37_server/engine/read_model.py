"""The protocols through which the services use a model, so that a test can serve another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mnist37.losses import Evaluation
from mnist37_server.domain.commands.commands import Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.records import QueuedRun, RunRecord, TagRecord, VersionRecord
from mnist37_server.domain.snapshot import Images, Snapshot
from mnist37_server.engine.followers import Followers
from mnist37_server.engine.writes.subscription import Subscription
from mnist37_server.observability.prediction_counts import PredictionCounts

if TYPE_CHECKING:  # a follower has no store, and does not load SQLite
    from mnist37_server.engine.run_watch import RunWatch


class Reading(NamedTuple):
    """A version from which to answer, and the start that the answer names."""

    snapshot: Snapshot
    start: int


class ReadModel(Protocol):
    """A model for reads, each of which is answered from one committed version.

    In every method, a version of None means the newest version, and a str is a tag. If a version is
    not retained, or there is no such tag, the method raises NotFound. A floor of None means any
    position. If the floor is in no history of the model, the method raises FailedPrecondition, and
    if it is not reached in time, Unavailable. The position of an answer is the server's start and
    the version.
    """

    @property
    def predictions(self) -> PredictionCounts:
        """Return the counts of the predictions; those that fail in `predict` are included."""

    @property
    def start(self) -> int:
        """Return the id of the owner's start, which answers name."""

    @property
    def device(self) -> object:
        """Return the device that trains the model; its str is the device's name."""

    def at(self, version: int | str | None = None, floor: Floor | None = None) -> Reading:
        """Return the snapshot of a version, and the start."""

    def predict(
        self, images: Images, version: int | str | None = None, floor: Floor | None = None
    ) -> tuple[NDArray[np.float32], Position]:
        """Return the probability (N,) that each image of (N, 784) is a 3; and the position."""

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
        """

    def evaluate(
        self,
        source: Split | Batch,
        version: int | str | None = None,
        floor: Floor | None = None,
    ) -> tuple[Evaluation, Position]:
        """Return the loss and the accuracy on resident images or a caller's batch; the position."""

    def versions(self, limit: int) -> list[VersionRecord]:
        """Return the retained versions, newest first, at most `limit`."""

    def version_numbers(self) -> list[int]:
        """Return the numbers of the versions that this server has, newest first."""

    def tags(self) -> list[TagRecord]:
        """Return the tags of callers by name, then those of the best versions, newest run first."""

    def queued_runs(self) -> list[QueuedRun]:
        """Return the runs that wait for their turn, the next one first."""

    def runs(self) -> Sequence[tuple[RunRecord, bool]]:
        """Return the retained runs, newest first, and whether each is under way."""

    def watch(self, number: int | None) -> RunWatch:
        """Watch the run of this number, None for the newest; raise NotFound if there is none."""


class WriteModel(Protocol):
    """A model for what only its owner does."""

    @property
    def followers(self) -> Followers:
        """Return the readers that follow the model."""

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        """Queue a write, join the pending write that has this request_id, or repeat its result."""

    def cancel(self, caller: Subscription) -> None:
        """End the wait of a caller that has cancelled or whose deadline has passed."""
