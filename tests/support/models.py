"""A base class of the models in tests of the services."""

from __future__ import annotations

import numpy as np
from mnist37_server.domain.commands.commands import Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.records import QueuedRun, RunRecord, TagRecord, VersionRecord
from mnist37_server.domain.snapshot import Images
from mnist37_server.engine.followers import Followers
from mnist37_server.engine.read_model import Reading
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.writes.subscription import Subscription
from mnist37_server.observability.prediction_counts import PredictionCounts
from numpy.typing import NDArray

from mnist37.losses import Evaluation


class UncalledModel:
    """A ReadModel and a WriteModel whose methods all fail the test.

    A test derives from it and overrides the methods that it expects to be called.
    """

    device = "cpu"
    predictions = PredictionCounts()

    def unexpected_call(self) -> AssertionError:
        return AssertionError("the test does not expect a call of this method")

    @property
    def start(self) -> int:
        raise self.unexpected_call()

    @property
    def followers(self) -> Followers:
        raise self.unexpected_call()

    def at(self, version: int | str | None = None, floor: Floor | None = None) -> Reading:
        raise self.unexpected_call()

    def predict(
        self, images: Images, version: int | str | None = None, floor: Floor | None = None
    ) -> tuple[NDArray[np.float32], Position]:
        raise self.unexpected_call()

    def predict_bytes(
        self,
        message: bytes,
        offset: int,
        count: int,
        version: int | str | None = None,
        floor: Floor | None = None,
    ) -> tuple[bytearray, Position]:
        raise self.unexpected_call()

    def evaluate(
        self,
        source: Split | Batch,
        version: int | str | None = None,
        floor: Floor | None = None,
    ) -> tuple[Evaluation, Position]:
        raise self.unexpected_call()

    def versions(self, limit: int) -> list[VersionRecord]:
        raise self.unexpected_call()

    def version_numbers(self) -> list[int]:
        raise self.unexpected_call()

    def tags(self) -> list[TagRecord]:
        raise self.unexpected_call()

    def queued_runs(self) -> list[QueuedRun]:
        raise self.unexpected_call()

    def runs(self) -> list[tuple[RunRecord, bool]]:
        raise self.unexpected_call()

    def watch(self, number: int | None) -> RunWatch:
        raise self.unexpected_call()

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        raise self.unexpected_call()

    def cancel(self, caller: Subscription) -> None:
        raise self.unexpected_call()
