"""One interface to Client and AsyncClient, so that each test is written once and runs with both."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from mnist37_client import (
    AsyncClient,
    AsyncTrainingRun,
    Client,
    Follower,
    Loss,
    Model,
    Prediction,
    Progress,
    Run,
    StepResult,
    Tag,
    Version,
    validation_images,
)
from numpy.typing import NDArray

T = TypeVar("T")

IMAGES, LABELS = validation_images()
ENDLESS_EPOCHS = 1_000_000  # far more than any test waits for
STEPS_AN_EPOCH = math.ceil(12_396 / 256)


class BlockingClient:
    """An AsyncClient with Client's interface. Its event loop runs in a separate thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        self.client = AsyncClient(*args, **kwargs)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def stop(self) -> None:
        self.run(self.client.close())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def predict(self, *args: Any, **kwargs: Any) -> Prediction:
        return self.run(self.client.predict(*args, **kwargs))

    def predict_stream(self, batches: Any) -> Iterator[Prediction]:
        return self._iterate(self.client.predict_stream(batches))

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def read_next() -> T | None:
            return await anext(items, None)

        async def close() -> None:
            assert inspect.isasyncgen(items)
            await items.aclose()

        try:
            while (item := self.run(read_next())) is not None:
                yield item
        finally:
            self.run(close())

    def train(self, *args: Any, **kwargs: Any) -> BlockingRun:
        async def begin() -> AsyncTrainingRun:
            return self.client.train(*args, **kwargs)

        return BlockingRun(self, self.run(begin()))

    def step(self, *args: Any, **kwargs: Any) -> StepResult:
        return self.run(self.client.step(*args, **kwargs))

    def get_loss(self, *args: Any, **kwargs: Any) -> Loss:
        return self.run(self.client.get_loss(*args, **kwargs))

    def initialize(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.initialize(*args, **kwargs))

    def get_model(self, **kwargs: Any) -> Model:
        return self.run(self.client.get_model(**kwargs))

    def versions(self, *args: Any, **kwargs: Any) -> list[Version]:
        return self.run(self.client.versions(*args, **kwargs))

    def restore(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.restore(*args, **kwargs))

    def import_model(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.import_model(*args, **kwargs))

    def tag_version(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.tag_version(*args, **kwargs))

    def followers(self) -> list[Follower]:
        return self.run(self.client.followers())

    def tags(self) -> list[Tag]:
        return self.run(self.client.tags())

    def delete_tag(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.delete_tag(*args, **kwargs))

    def runs(self, **kwargs: Any) -> list[Run]:
        return self.run(self.client.runs(**kwargs))

    def watch_run(self, *args: Any, **kwargs: Any) -> Iterator[Run | Progress]:
        return self._iterate(self.client.watch_run(*args, **kwargs))

    def close(self) -> None:
        self.run(self.client.close())


class BlockingRun(Iterator[Progress]):
    """An AsyncTrainingRun with TrainingRun's interface."""

    def __init__(self, owner: BlockingClient, run: AsyncTrainingRun) -> None:
        self._owner = owner
        self._run = run

    def __next__(self) -> Progress:
        async def read_next() -> Progress | None:
            return await anext(self._run, None)

        progress = self._owner.run(read_next())
        if progress is None:
            raise StopIteration
        return progress

    def wait(self) -> Progress:
        return self._owner.run(self._run.wait())

    def waits_for(self) -> Run | None:
        return self._owner.run(self._run.waits_for())

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


AnyClient = Client | BlockingClient
MakeClient = Callable[..., AnyClient]  # its arguments are Client's


def new_request_id() -> str:
    """Return a request_id that no server has seen, including one that started long before."""
    return uuid.uuid4().hex


def train_and_leave(client: AnyClient, count: int) -> list[Progress]:
    """Start an endless run, leave the loop over it after `count` epochs; return their progress."""

    async def follow(client: AsyncClient) -> list[Progress]:
        epochs = []
        async for progress in client.train(ENDLESS_EPOCHS):
            epochs.append(progress)
            if len(epochs) == count:
                break
        return epochs

    if isinstance(client, BlockingClient):
        return client.run(follow(client.client))
    epochs = []
    for progress in client.train(ENDLESS_EPOCHS):
        epochs.append(progress)
        if len(epochs) == count:
            break
    return epochs


def mean_loss(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return the mean of mnist_loss over images with these probabilities and labels."""
    p = probabilities.astype(np.float64)
    return float(np.where(labels == 1, 1 - p, p).mean())


def assert_no_run(client: AnyClient) -> int:
    """Assert that no run is active, and return the newest version.

    A Step completes, and no write follows it.
    """
    version = client.step().version
    time.sleep(0.1)
    assert client.get_model().version == version
    return version
