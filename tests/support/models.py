"""A model for tests of the services: whoever derives from it answers what the test asks."""

from __future__ import annotations

import numpy as np
from mnist37_server.domain.commands import Request
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import RunRecord, VersionRecord
from mnist37_server.domain.snapshot import Images, Snapshot
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.subscription import Subscription
from numpy.typing import NDArray

from mnist37.losses import Evaluation


class UnaskedModel:
    """A ReadModel and a WriteModel of which nothing is asked, or the test fails."""

    device = "cpu"

    def unasked(self) -> AssertionError:
        return AssertionError("this test's model was not to be asked that")

    def at(self, version: int | None = None) -> Snapshot:
        raise self.unasked()

    def predict(
        self, images: Images, version: int | None = None
    ) -> tuple[NDArray[np.float32], int]:
        raise self.unasked()

    def predict_bytes(
        self, message: bytes, start: int, count: int, version: int | None = None
    ) -> tuple[bytearray, int]:
        raise self.unasked()

    def evaluate(self, on: Split | Batch, version: int | None = None) -> tuple[Evaluation, int]:
        raise self.unasked()

    def versions(self, limit: int) -> list[VersionRecord]:
        raise self.unasked()

    def runs(self) -> list[tuple[RunRecord, bool]]:
        raise self.unasked()

    def watch(self, number: int | None) -> RunWatch:
        raise self.unasked()

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        raise self.unasked()

    def cancel(self, caller: Subscription) -> None:
        raise self.unasked()
