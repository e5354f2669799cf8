"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from functools import partial

from numpy.typing import ArrayLike

from mnist37_client._rpc.channel import ConnectionSettings, Pem, ReplicaNames
from mnist37_client._rpc.messages import requests
from mnist37_client._rpc.methods import calls
from mnist37_client._rpc.methods.calls import RunStateName, ScheduleName, SplitName
from mnist37_client._rpc.methods.progress import ProgressBuffer
from mnist37_client._rpc.methods.streams import WatchedRun, iterate_async
from mnist37_client._rpc.transport.asyncio_calls import AsyncioCalls
from mnist37_client._rpc.transport.batching import BATCHED_IMAGES_MAX
from mnist37_client.client import DEFAULT_ADDRESS, DEFAULT_RETRY_FOR, DEFAULT_TIMEOUT
from mnist37_client.images import one_image_bytes, to_images
from mnist37_client.results import (
    Follower,
    Loss,
    Model,
    Prediction,
    Progress,
    Run,
    StepResult,
    Tag,
    Version,
)
from mnist37_client.runs.async_training_run import AsyncTrainingRun


class AsyncClient(AsyncioCalls):
    """A connection to one server and its followers, for the tasks of an event loop.

    The client connects at the first call, in each event loop anew: it may be made anywhere, and
    used in one `asyncio.run` after the other. Every method raises a Mnist37Error if it fails;
    mnist37_client.errors lists the exceptions. The client merges `predict` calls that many tasks
    make at the same time into few messages. Each call keeps its own answer, error and timeout.

    Args:
        merge: merge concurrent `predict` calls; False sends each call by itself.

    The other arguments are those of Client.
    """

    def __init__(
        self,
        address: str | None = DEFAULT_ADDRESS,
        *,
        replicas: ReplicaNames | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry_for: float = DEFAULT_RETRY_FOR,
        merge: bool = True,
        tls_ca: Pem | None = None,
        tls_cert: Pem | None = None,
        tls_key: Pem | None = None,
        tls_server_name: str | None = None,
        token: str | None = None,
        insecure: bool = False,
    ) -> None:
        settings = ConnectionSettings(
            address, replicas, tls_ca, tls_cert, tls_key, tls_server_name, token, insecure
        )
        super().__init__(settings, timeout, retry_for, merge)

    async def predict(
        self, images: ArrayLike, *, version: int | str | None = None, fresh: bool = False
    ) -> Prediction:
        """Return the probability of a three for each image.

        Arguments, results and errors are those of Client.predict.
        """
        batcher = None
        if version is None and fresh is False:
            batcher = self._connections.current().batcher
        pixels = one_image_bytes(images) if batcher else None
        if batcher is None or pixels is None:
            rows = to_images(images)
            if batcher is None or len(rows) > BATCHED_IMAGES_MAX:
                exchange = calls.predict(self._exchanges, rows, version, fresh)
                return await self._carry_out(exchange)
            pixels = rows.tobytes()
        prediction = batcher.predict(pixels)
        try:
            return await prediction
        except asyncio.CancelledError:
            batcher.cancel(prediction)
            raise

    async def predict_stream(
        self, batches: Iterable[ArrayLike] | AsyncIterable[ArrayLike]
    ) -> AsyncIterator[Prediction]:
        """Yield the prediction for each batch in order, over one stream.

        Args:
            batches: images as in Client.predict, up to 85,000 a batch; may be an async iterable.

        Raises:
            InvalidInput: a batch is not valid.
        """
        async for prediction in self._predict_stream(iterate_async(batches)):
            yield prediction

    def train(
        self,
        epochs: int,
        *,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        name: str | None = None,
        schedule: ScheduleName | None = None,
        final_learning_rate: float | None = None,
        warmup_epochs: int | None = None,
        patience: int | None = None,
        min_delta: float | None = None,
        request_id: str | None = None,
    ) -> AsyncTrainingRun:
        """Start a training run, or continue an interrupted one, and return it.

        Iterate over the run with `async for`, or await its `wait`. Arguments and errors are those
        of Client.train.
        """
        request = requests.train_request(
            epochs,
            schedule,
            request_id,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            name=name,
            final_learning_rate=final_learning_rate,
            warmup_epochs=warmup_epochs,
            patience=patience,
            min_delta=min_delta,
        )
        return AsyncTrainingRun(
            partial(self._invoke, "Train", request),
            ProgressBuffer(request, self._exchanges.session),
            self._translate_errors,
            self._retry_policy,
            self.runs,
            self.watch_run,
        )

    async def step(
        self,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        learning_rate: float | None = None,
        request_id: str | None = None,
    ) -> StepResult:
        """Do one step of SGD and return its loss and the new version.

        Arguments, results and errors are those of Client.step.
        """
        exchange = calls.step(self._exchanges, images, labels, learning_rate, request_id)
        return await self._carry_out(exchange)

    async def get_loss(
        self,
        split: SplitName | None = None,
        *,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        version: int | str | None = None,
        fresh: bool = False,
    ) -> Loss:
        """Return the mean loss and the accuracy on a split of the server's images, or on yours.

        Arguments, results and errors are those of Client.get_loss.
        """
        exchange = calls.get_loss(self._exchanges, split, images, labels, version, fresh)
        return await self._carry_out(exchange)

    async def initialize(
        self,
        *,
        seed: int | None = None,
        std: float | None = None,
        request_id: str | None = None,
    ) -> int:
        """Draw new random parameters and return their version.

        Arguments, results and errors are those of Client.initialize.
        """
        return await self._carry_out(calls.initialize(self._exchanges, seed, std, request_id))

    async def get_model(self, *, version: int | str | None = None, fresh: bool = False) -> Model:
        """Return the parameters of a version: float32, weights (784,) and a bias.

        Arguments, results and errors are those of Client.get_model.
        """
        return await self._carry_out(calls.get_model(self._exchanges, version, fresh))

    async def versions(self, limit: int | None = None) -> list[Version]:
        """Return the retained versions, newest first.

        Arguments, results and errors are those of Client.versions.
        """
        return await self._carry_out(calls.versions(limit))

    async def restore(self, version: int | str, *, request_id: str | None = None) -> int:
        """Make a retained version's parameters the model's again and return the new version.

        Arguments, results and errors are those of Client.restore.
        """
        return await self._carry_out(calls.restore(self._exchanges, version, request_id))

    async def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Replace the model's weights and its bias, and return the new version.

        Arguments, results and errors are those of Client.import_model.
        """
        return await self._carry_out(calls.import_model(self._exchanges, weights, bias, request_id))

    async def tag_version(
        self, name: str, version: int | str | None = None, *, request_id: str | None = None
    ) -> int:
        """Point a tag to a version, which the server then retains, and return the version.

        Arguments and errors are those of Client.tag_version.
        """
        return await self._carry_out(calls.tag_version(self._exchanges, name, version, request_id))

    async def followers(self) -> list[Follower]:
        """Return the followers that the server sends its versions to, the first one first."""
        return await self._carry_out(calls.followers())

    async def tags(self) -> list[Tag]:
        """Return the tags by name, then the server's `best@RUN`, newest run first."""
        return await self._carry_out(calls.tags())

    async def delete_tag(self, name: str, *, request_id: str | None = None) -> int:
        """Delete a tag and return the version to which it pointed.

        Arguments, results and errors are those of Client.delete_tag.
        """
        return await self._carry_out(calls.delete_tag(self._exchanges, name, request_id))

    async def runs(
        self,
        *,
        name: str | None = None,
        state: RunStateName | None = None,
        limit: int | None = calls.RUNS,
    ) -> list[Run]:
        """Return training runs, newest first; those that wait for their turn come before.

        Arguments and errors are those of Client.runs.
        """
        return await self._carry_out(calls.runs(name, state, limit))

    async def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[Run | Progress]:
        """Yield a run, then its curve: the progress of at most 1,001 of its epochs.

        Arguments, results and errors are those of Client.watch_run.
        """
        watched = WatchedRun(run, self._exchanges.session)
        call = self._invoke("WatchRun", requests.watch_request(run, follow))
        try:
            with self._translate_errors():
                async for content in call:
                    for item in watched.parse(content):
                        yield item
        finally:
            call.cancel()
