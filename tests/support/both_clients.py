"""Client and AsyncClient as one: each behaviour is written once, and tried with both."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from mnist37_client import (
    AsyncClient,
    AsyncTrainingRun,
    Client,
    Loss,
    Model,
    Prediction,
    Progress,
    StepResult,
    validation_images,
)
from numpy.typing import NDArray

T = TypeVar("T")

IMAGES, LABELS = validation_images()
FOR_EVER = 1_000_000  # epochs: far more than any test waits for
STEPS_AN_EPOCH = math.ceil(12_396 / 256)


class Blocking:
    """AsyncClient as a Client: each call is run to its end, on a loop in a thread of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def make() -> AsyncClient:
            return AsyncClient(*args, **kwargs)

        self.client = self.run(make())
        # A run that is dropped is cancelled, which has to happen on the loop: so none is dropped.
        self._runs: list[AsyncTrainingRun] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def end(self) -> None:
        async def drop() -> None:
            self._runs.clear()
            await self.client.close()

        self.run(drop())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def predict(self, *args: Any, **kwargs: Any) -> Prediction:
        return self.run(self.client.predict(*args, **kwargs))

    def predict_stream(self, batches: Any) -> Iterator[Prediction]:
        answers = self.client.predict_stream(batches)

        async def following() -> Prediction | None:
            return await anext(answers, None)

        async def leave() -> None:
            assert inspect.isasyncgen(answers)
            await answers.aclose()

        try:
            while (answer := self.run(following())) is not None:
                yield answer
        finally:
            self.run(leave())

    def train(self, *args: Any, **kwargs: Any) -> BlockingRun:
        async def begin() -> AsyncTrainingRun:
            return self.client.train(*args, **kwargs)

        self._runs.append(self.run(begin()))
        return BlockingRun(self, self._runs[-1])

    def step(self, *args: Any, **kwargs: Any) -> StepResult:
        return self.run(self.client.step(*args, **kwargs))

    def get_loss(self, *args: Any, **kwargs: Any) -> Loss:
        return self.run(self.client.get_loss(*args, **kwargs))

    def initialize(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.initialize(*args, **kwargs))

    def get_model(self) -> Model:
        return self.run(self.client.get_model())

    def close(self) -> None:
        self.run(self.client.close())


class BlockingRun(Iterator[Progress]):
    """AsyncTrainingRun as a TrainingRun."""

    def __init__(self, owner: Blocking, run: AsyncTrainingRun) -> None:
        self._owner = owner
        self._run = run

    def __next__(self) -> Progress:
        async def following() -> Progress | None:
            return await anext(self._run, None)

        progress = self._owner.run(following())
        if progress is None:
            raise StopIteration
        return progress

    def wait(self) -> Progress:
        return self._owner.run(self._run.wait())

    def cancel(self) -> None:
        async def cancel() -> None:
            self._run.cancel()

        self._owner.run(cancel())

    def __enter__(self) -> Self:
        self._owner.run(self._run.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner.run(self._run.__aexit__(kind, error, traceback))


AnyClient = Client | Blocking
Make = Callable[..., AnyClient]  # takes what Client takes


def some_id() -> str:
    """A request_id that the server has never seen, though it may be older than these tests."""
    return uuid.uuid4().hex


def leave_after(client: AnyClient, count: int) -> list[Progress]:
    """Follows a run for `count` epochs, then leaves the loop over it."""

    async def follow(client: AsyncClient) -> list[Progress]:
        seen = []
        async for progress in client.train(FOR_EVER):
            seen.append(progress)
            if len(seen) == count:
                break
        return seen

    if isinstance(client, Blocking):
        return client.run(follow(client.client))
    seen = []
    for progress in client.train(FOR_EVER):
        seen.append(progress)
        if len(seen) == count:
            break
    return seen


def loss_of(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The mean of mnist_loss."""
    p = probabilities.astype(np.float64)
    return float(np.where(labels == 1, 1 - p, p).mean())


def assert_still(client: AnyClient) -> int:
    """No run is under way: a write gets its turn, and is the last; returns its version."""
    version = client.step().version
    time.sleep(0.1)
    assert client.get_model().version == version
    return version
