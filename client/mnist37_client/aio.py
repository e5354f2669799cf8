"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from numpy.typing import ArrayLike

from mnist37_client._rpc import calls
from mnist37_client._rpc.asyncio_errors import translate_errors
from mnist37_client._rpc.batching import BATCHED_IMAGES_MAX, RequestBatcher
from mnist37_client._rpc.calls import Exchange, Request, Response, Result, SplitName
from mnist37_client._rpc.channel import ConnectionSettings, Pem
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client.async_training_run import AsyncTrainingRun
from mnist37_client.client import DEFAULT_ADDRESS, DEFAULT_RETRY_FOR, DEFAULT_TIMEOUT
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.images import PIXELS, is_one_image, to_images
from mnist37_client.results import Loss, Model, Prediction, Progress, Run, StepResult, Version


class AsyncClient:
    """A connection to one server, for the tasks of one event loop.

    The client connects at the first call. Every method raises a Mnist37Error if it fails;
    mnist37_client.errors lists the exceptions. The client merges `predict` calls that many tasks
    make at the same time into few messages. Each call keeps its own answer, error and timeout.

    Args:
        merge: merge concurrent `predict` calls; False sends each call by itself.

    The other arguments are those of Client.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
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
        self.address = calls.check_address(address)
        self.timeout = timeout
        self._retry_policy = RetryPolicy(retry_for)
        self._closed = False
        settings = ConnectionSettings(
            address, tls_ca, tls_cert, tls_key, tls_server_name, token, insecure
        )
        self._channel = settings.channel(
            grpc.aio.insecure_channel, grpc.aio.secure_channel, calls.CHANNEL_OPTIONS
        )
        self._stub = settings.stub(mnist37_pb2_grpc.Mnist37ServiceStub(self._channel))
        self._batcher = RequestBatcher(self._stub.Predict, self._call, address) if merge else None

    async def predict(self, images: ArrayLike, *, version: int | None = None) -> Prediction:
        """Return the probability of a three for each image.

        Arguments, results and errors are those of Client.predict.
        """
        array = images if is_one_image(images) else to_images(images)
        if not self._batcher or version is not None or array.size > BATCHED_IMAGES_MAX * PIXELS:
            return await self._carry_out(self._stub.Predict, calls.predict(array, version))
        prediction = self._batcher.predict(array.tobytes())
        try:
            return await prediction
        except asyncio.CancelledError:
            self._batcher.cancel(prediction)
            raise

    async def predict_stream(
        self, batches: Iterable[ArrayLike] | AsyncIterable[ArrayLike]
    ) -> AsyncIterator[Prediction]:
        """Yield the prediction for each batch in order, over one stream.

        Args:
            batches: images as in Client.predict, up to 85,000 a batch; may be an async iterable.
        """
        errors: list[Exception] = []

        async def requests() -> AsyncIterator[pb.PredictRequest]:
            try:
                if isinstance(batches, AsyncIterable):
                    async for images in batches:
                        yield calls.predict_request(to_images(images))
                else:
                    for images in batches:
                        yield calls.predict_request(to_images(images))
            except Exception as error:  # noqa: BLE001 - raised again in the caller's task
                errors.append(error)

        self._raise_if_closed()
        call = self._stub.PredictStream(requests())
        try:
            with translate_errors(self.address):
                async for response in call:
                    yield calls.parse_prediction(response)
        finally:
            call.cancel()
        if errors:
            raise errors[0]

    def train(
        self,
        epochs: int,
        *,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        request_id: str | None = None,
    ) -> AsyncTrainingRun:
        """Start a training run, or continue an interrupted one, and return it.

        Iterate over the run with `async for`, or await its `wait`. Arguments and errors are those
        of Client.train.
        """
        self._raise_if_closed()
        request = calls.train_request(epochs, learning_rate, batch_size, seed, request_id)

        def begin() -> grpc.aio.UnaryStreamCall[pb.TrainRequest, pb.TrainResponse]:
            self._raise_if_closed()
            call: grpc.aio.UnaryStreamCall[pb.TrainRequest, pb.TrainResponse]
            call = self._stub.Train(request)
            return call

        return AsyncTrainingRun(begin, self.address, self._retry_policy)

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
        exchange = calls.step(images, labels, learning_rate, request_id)
        return await self._carry_out(self._stub.Step, exchange)

    async def get_loss(
        self,
        split: SplitName | None = None,
        *,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        version: int | None = None,
    ) -> Loss:
        """Return the mean loss and the accuracy on a split of the server's images, or on yours.

        Arguments, results and errors are those of Client.get_loss.
        """
        exchange = calls.get_loss(split, images, labels, version)
        return await self._carry_out(self._stub.GetLoss, exchange)

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
        return await self._carry_out(self._stub.Initialize, calls.initialize(seed, std, request_id))

    async def get_model(self, *, version: int | None = None) -> Model:
        """Return the parameters of the newest version, or of a retained one."""
        return await self._carry_out(self._stub.GetModel, calls.get_model(version))

    async def versions(self, limit: int | None = None) -> list[Version]:
        """Return the retained versions, newest first, at most `limit`."""
        return await self._carry_out(self._stub.ListVersions, calls.versions(limit))

    async def restore(self, version: int, *, request_id: str | None = None) -> int:
        """Make a retained version's parameters the model's again and return the new version."""
        return await self._carry_out(self._stub.Restore, calls.restore(version, request_id))

    async def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Replace the model's 784 weights and its bias, and return the new version."""
        exchange = calls.import_model(weights, bias, request_id)
        return await self._carry_out(self._stub.Import, exchange)

    async def runs(self) -> list[Run]:
        """Return the newest 100 training runs, newest first."""
        return await self._carry_out(self._stub.ListRuns, calls.runs())

    async def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[Run | Progress]:
        """Yield a run, then the progress of at most 1,000 of its epochs, evenly spread.

        Arguments, results and errors are those of Client.watch_run.
        """
        self._raise_if_closed()
        call = self._stub.WatchRun(calls.watch_request(run, follow))
        try:
            with translate_errors(self.address):
                async for response in call:
                    for item in calls.parse_watch_response(response):
                        yield item
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connection and end every call in flight."""
        self._closed = True
        if self._batcher:
            self._batcher.close()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _carry_out(
        self,
        method: Callable[..., Awaitable[Response]],
        exchange: Exchange[Request, Response, Result],
    ) -> Result:
        try:
            request = next(exchange)
            while True:
                request = exchange.send(await self._call(method, request))
        except StopIteration as end:
            result: Result = end.value
            return result

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")

    async def _call(self, method: Callable[..., Awaitable[Response]], request: Request) -> Response:
        attempts = self._retry_policy.attempts()
        while True:
            self._raise_if_closed()
            try:
                with translate_errors(self.address):
                    response = await method(request, timeout=self.timeout)
            except Mnist37Error as error:
                await asyncio.sleep(attempts.next_pause(error))
            else:
                attempts.record_success()
                return response
