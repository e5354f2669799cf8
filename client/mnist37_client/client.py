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
    """A connection to one server; safe to share between threads. It is made at the first call.

    Every method raises Mnist37Error, as one of the exceptions drawn in mnist37_client.errors.

    Args:
        address: HOST:PORT of the server.
        timeout: seconds that a call may take, waiting for a run's end included; None for ever.
            A training run has none.
        retry_for: seconds for which calls are tried again when the server has gone away, so that
            a script lives through its restart; 0 for not at all. Each write has an id, so it is
            done once all the same.
        tls_ca: the authority that signed the server's certificate, in PEM: a file's path, or the
            bytes; "public" for those that gRPC comes with. It turns TLS on.
        tls_cert: this client's own certificate, for a server that asks for one; as tls_ca.
        tls_key: its private key.
        tls_server_name: the name in the server's certificate, where it is not the address's.
        token: says what this client may do; what `mnist37 token` printed. It is not sent in plain
            text to another machine.
        insecure: send it all the same.
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
        access = ConnectionSettings(
            address, tls_ca, tls_cert, tls_key, tls_server_name, token, insecure
        )
        self._channel = access.channel(
            grpc.insecure_channel, grpc.secure_channel, calls.CHANNEL_OPTIONS
        )
        self._stub = access.stub(mnist37_pb2_grpc.Mnist37ServiceStub(self._channel))

    def predict(self, images: ArrayLike, *, version: int | None = None) -> Prediction:
        """What the model says of some images.

        Args:
            images: uint8 in 0..255 or floats in 0..1; (N, 28, 28), (N, 784), or one image. Any
                number: what one message cannot hold is sent in several, and answered from one
                version all the same.
            version: ask this version instead of the newest.
        """
        return self._carry_out(self._stub.Predict, calls.predict(images, version))

    def predict_stream(self, batches: Iterable[ArrayLike]) -> Iterator[Prediction]:
        """What the model says of one batch after the other, over one stream.

        Args:
            batches: each as `predict` takes them, up to 85,000 images.
        """
        failed: list[Exception] = []

        def requests() -> Iterator[pb.PredictRequest]:
            try:
                for images in batches:
                    yield calls.predict_request(to_images(images))
            except Exception as error:  # noqa: BLE001 - raised again where the caller is
                failed.append(error)

        self._raise_if_closed()
        call = self._stub.PredictStream(requests())
        try:
            yield from map(calls.parse_prediction, call)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()
        if failed:
            raise failed[0]

    def train(
        self,
        epochs: int,
        *,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        request_id: str | None = None,
    ) -> TrainingRun:
        """Begins a run, or goes on with the one of that request_id; iterate over it for progress.

        Args:
            epochs: 1 to 1,000,000.
            learning_rate: above 0; the server's default is 1.0.
            batch_size: 1 to 12,396; 256.
            seed: of the shuffling; 42.
            request_id: up to 128 characters; the same id and values go on with a run that was
                interrupted.
        """
        self._raise_if_closed()
        request = calls.train_request(epochs, learning_rate, batch_size, seed, request_id)
        return TrainingRun(lambda: self._stub.Train(request), self.address, self._retry_policy)

    def step(
        self,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        learning_rate: float | None = None,
        request_id: str | None = None,
    ) -> StepResult:
        """One step of SGD.

        Args:
            images: a batch of your own, as `predict` takes them; without it, the training set's
                next 256.
            labels: (N,), 1 for a three and 0 for a seven.
            learning_rate: above 0; the server's default is 1.0.
            request_id: makes it safe to ask again: a step of the same id is done once.
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
        """The mean loss and the accuracy on the server's "train" or "valid" images, or on yours.

        Args:
            split: "train" or "valid".
            images: yours, as `predict` takes them, instead of a split.
            labels: (N,), 1 for a three and 0 for a seven.
            version: ask this version instead of the newest.
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
        """Draws fresh random parameters; returns their version.

        Args:
            seed: of the draw; the server's default is 42.
            std: the standard deviation, 0 to 100; 1.0.
            request_id: makes it safe to ask again.
        """
        return self._carry_out(self._stub.Initialize, calls.initialize(seed, std, request_id))

    def get_model(self, *, version: int | None = None) -> Model:
        """The parameters of the newest version, or of a retained one."""
        return self._carry_out(self._stub.GetModel, calls.get_model(version))

    def versions(self, limit: int | None = None) -> list[Version]:
        """The versions that the server keeps, newest first, at most `limit`."""
        return self._carry_out(self._stub.ListVersions, calls.versions(limit))

    def restore(self, version: int, *, request_id: str | None = None) -> int:
        """Makes a retained version's parameters the model's again; returns the new version."""
        return self._carry_out(self._stub.Restore, calls.restore(version, request_id))

    def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Makes 784 weights and a bias from elsewhere the model's; returns the new version."""
        exchange = calls.import_model(weights, bias, request_id)
        return self._carry_out(self._stub.Import, exchange)

    def runs(self) -> list[Run]:
        """The newest 100 training runs, newest first."""
        return self._carry_out(self._stub.ListRuns, calls.runs())

    def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> Iterator[Run | Progress]:
        """A run as it stands, then the progress of its epochs: 1,000 at the most, evenly spread.

        Args:
            run: its number; without it, the newest.
            follow: go on with each epoch as it comes, and end with how the run ended. Watching
                changes nothing: a run that is only watched stops.
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
        """Ends the connection, and with it every call under way."""
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
        self._raise_if_closed()
        attempts = self._retry_policy.attempts()
        while True:
            try:
                response = method(request, timeout=self.timeout)
            except grpc.RpcError as error:
                time.sleep(attempts.next_pause(from_rpc(error, self.address)))
            else:
                attempts.succeeded()
                return response
