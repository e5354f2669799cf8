"""The client for threads and scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import grpc
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from numpy.typing import ArrayLike

from mnist37_client._rpc import calls
from mnist37_client._rpc.calls import Exchange, Request, Response, Result, SplitName
from mnist37_client._rpc.channel import ConnectionSettings, Pem
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client._rpc.status import from_rpc
from mnist37_client.errors import Cancelled
from mnist37_client.images import to_images
from mnist37_client.results import Loss, Model, Prediction, Progress, Run, StepResult, Version
from mnist37_client.training_run import TrainingRun

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 60.0


class Client:
    """A connection to one server, which threads may share.

    The client connects at the first call. Every method raises a Mnist37Error if it fails;
    mnist37_client.errors lists the exceptions.

    Args:
        address: HOST:PORT of the server.
        timeout: seconds that a call may take, with the time that a write waits for a training run;
            None means no limit. A training run has no limit.
        retry_for: seconds for which the client retries a call when the server is away, so that a
            script survives a restart of the server; 0 means no retry. Each write has an id, so the
            server applies it once.
        tls_ca: the authority that signed the server's certificate, in PEM: a file's path, or the
            bytes; "public" means the authorities that gRPC brings. It turns TLS on.
        tls_cert: the client's own certificate in PEM, a path or bytes, if the server requires one.
        tls_key: the private key of tls_cert, in PEM, a path or bytes.
        tls_server_name: the name in the server's certificate, if it differs from the name in the
            address.
        token: the client's token, which `mnist37 token` printed. The client does not send it to
            another machine in plain text.
        insecure: send the token to another machine in plain text too.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry_for: float = DEFAULT_RETRY_FOR,
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
            grpc.insecure_channel, grpc.secure_channel, calls.CHANNEL_OPTIONS
        )
        self._stub = settings.stub(mnist37_pb2_grpc.Mnist37ServiceStub(self._channel))

    def predict(self, images: ArrayLike, *, version: int | None = None) -> Prediction:
        """Return the probability of a three for each image.

        Args:
            images: uint8 in 0..255 or floats in 0..1; (N, 28, 28), (N, 784), or one image. N has
                no limit: the client splits many images into several messages, and all answers
                are from one version.
            version: a retained version; None means the newest.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the version.
        """
        return self._carry_out(self._stub.Predict, calls.predict(images, version))

    def predict_stream(self, batches: Iterable[ArrayLike]) -> Iterator[Prediction]:
        """Yield the prediction for each batch in order, over one stream.

        Args:
            batches: images as in `predict`, up to 85,000 a batch.
        """
        errors: list[Exception] = []

        def requests() -> Iterator[pb.PredictRequest]:
            try:
                for images in batches:
                    yield calls.predict_request(to_images(images))
            except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
                errors.append(error)

        self._raise_if_closed()
        call = self._stub.PredictStream(requests())
        try:
            yield from map(calls.parse_prediction, call)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
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
    ) -> TrainingRun:
        """Start a training run, or continue an interrupted one, and return it.

        Iterate over the run for the progress of each epoch, or call its `wait`.

        Args:
            epochs: 1 to 1,000,000.
            learning_rate: above 0; the server's default is 1.0.
            batch_size: 1 to 12,396; the server's default is 256.
            seed: the seed of the shuffling; the server's default is 42.
            request_id: up to 128 characters; the id of an interrupted run, with the same values,
                continues that run.
        """
        self._raise_if_closed()
        request = calls.train_request(epochs, learning_rate, batch_size, seed, request_id)

        def begin() -> Iterator[pb.TrainResponse]:
            self._raise_if_closed()
            responses: Iterator[pb.TrainResponse] = self._stub.Train(request)
            return responses

        return TrainingRun(begin, self.address, self._retry_policy)

    def step(
        self,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        learning_rate: float | None = None,
        request_id: str | None = None,
    ) -> StepResult:
        """Do one step of SGD and return its loss and the new version.

        Args:
            images: your own batch, as in `predict`; None means the training set's next 256 images.
            labels: (N,), 1 for a three and 0 for a seven.
            learning_rate: above 0; the server's default is 1.0.
            request_id: makes the call safe to repeat: the server does a step of one id once.
        """
        exchange = calls.step(images, labels, learning_rate, request_id)
        return self._carry_out(self._stub.Step, exchange)

    def get_loss(
        self,
        split: SplitName | None = None,
        *,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        version: int | None = None,
    ) -> Loss:
        """Return the mean loss and the accuracy on a split of the server's images, or on yours.

        Args:
            split: "train" or "valid".
            images: your own images, as in `predict`, instead of a split.
            labels: (N,), 1 for a three and 0 for a seven.
            version: a retained version; None means the newest.
        """
        exchange = calls.get_loss(split, images, labels, version)
        return self._carry_out(self._stub.GetLoss, exchange)

    def initialize(
        self,
        *,
        seed: int | None = None,
        std: float | None = None,
        request_id: str | None = None,
    ) -> int:
        """Draw new random parameters and return their version.

        Args:
            seed: the seed of the random numbers; the server's default is 42.
            std: their standard deviation, 0 to 100; the server's default is 1.0.
            request_id: makes the call safe to repeat.
        """
        return self._carry_out(self._stub.Initialize, calls.initialize(seed, std, request_id))

    def get_model(self, *, version: int | None = None) -> Model:
        """Return the parameters of the newest version, or of a retained one."""
        return self._carry_out(self._stub.GetModel, calls.get_model(version))

    def versions(self, limit: int | None = None) -> list[Version]:
        """Return the retained versions, newest first, at most `limit`."""
        return self._carry_out(self._stub.ListVersions, calls.versions(limit))

    def restore(self, version: int, *, request_id: str | None = None) -> int:
        """Make a retained version's parameters the model's again and return the new version."""
        return self._carry_out(self._stub.Restore, calls.restore(version, request_id))

    def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Replace the model's 784 weights and its bias, and return the new version."""
        exchange = calls.import_model(weights, bias, request_id)
        return self._carry_out(self._stub.Import, exchange)

    def runs(self) -> list[Run]:
        """Return the newest 100 training runs, newest first."""
        return self._carry_out(self._stub.ListRuns, calls.runs())

    def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> Iterator[Run | Progress]:
        """Yield a run, then the progress of at most 1,000 of its epochs, evenly spread.

        Args:
            run: the run's number; None means the newest run.
            follow: then also yield each new epoch, and the run again at its end. To watch a run
                does not keep it alive: a run stops when only watchers are left.
        """
        self._raise_if_closed()
        call = self._stub.WatchRun(calls.watch_request(run, follow))
        try:
            for response in call:
                yield from calls.parse_watch_response(response)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the connection and end every call in flight."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _carry_out(
        self, method: Callable[..., Response], exchange: Exchange[Request, Response, Result]
    ) -> Result:
        try:
            request = next(exchange)
            while True:
                request = exchange.send(self._call(method, request))
        except StopIteration as end:
            result: Result = end.value
            return result

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")

    def _call(self, method: Callable[..., Response], request: Request) -> Response:
        attempts = self._retry_policy.attempts()
        while True:
            self._raise_if_closed()
            try:
                response = method(request, timeout=self.timeout)
            except grpc.RpcError as error:
                time.sleep(attempts.next_pause(from_rpc(error, self.address)))
            else:
                attempts.record_success()
                return response
