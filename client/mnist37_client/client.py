"""The client for threads and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from numpy.typing import ArrayLike

from mnist37_client._rpc.channel import ConnectionSettings, Pem, ReplicaNames
from mnist37_client._rpc.messages import requests
from mnist37_client._rpc.methods import calls
from mnist37_client._rpc.methods.calls import ScheduleName, SplitName
from mnist37_client._rpc.methods.progress import ProgressBuffer
from mnist37_client._rpc.methods.streams import iterate
from mnist37_client.catalogue import Catalogue
from mnist37_client.images import one_image_bytes, to_images
from mnist37_client.results import Loss, Model, Prediction, StepResult, Version
from mnist37_client.runs.training_run import TrainingRun

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 60.0


class Client(Catalogue):
    """A connection to one server and its followers, which threads may share.

    The client connects at the first call. Every method raises a Mnist37Error if it fails;
    mnist37_client.errors lists the exceptions.

    Args:
        address: HOST:PORT of the server, the owner of the model. None means that only the followers
            are known: then the client reads and does not write.
        replicas: followers of the server, which answer `predict`, `predict_stream`, `get_loss` and
            `get_model`: a list of IP:PORT, dns:///NAME:PORT for all addresses of a name, or "owner"
            for the server's own list, which the client asks for now and then (role *follow*). If
            they do not answer, the server does. No answer is older than what the client has seen.
        timeout: seconds that a call may take, with the time that a write waits for a training run;
            None means no limit. A training run has no limit.
        retry_for: seconds for which the client retries a call when the server is away; 0 means no
            retry. Each write has an id, so the server applies it once.
        tls_ca: the authority that signed the server's certificate, in PEM: a file's path, or the
            bytes; "public" means the authorities that gRPC brings. It turns TLS on.
        tls_cert: the client's own certificate in PEM, a path or bytes, if the server requires one.
        tls_key: the private key of tls_cert, in PEM, a path or bytes.
        tls_server_name: the name in the server's certificate, if it is not that of the address.
        token: the client's token, which `mnist37 token` printed. The client does not send it to
            another machine in plain text.
        insecure: send the token to another machine in plain text too.
    """

    def __init__(
        self,
        address: str | None = DEFAULT_ADDRESS,
        *,
        replicas: ReplicaNames | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry_for: float = DEFAULT_RETRY_FOR,
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
        super().__init__(settings, timeout, retry_for)

    def predict(
        self, images: ArrayLike, *, version: int | str | None = None, fresh: bool = False
    ) -> Prediction:
        """Return the probability of a three for each image.

        Args:
            images: uint8 in 0..255 or floats in 0..1; (N, 28, 28), (N, 784), or one image. N has
                no limit: the client splits many images into several messages, and all answers
                are from one version.
            version: a retained version or a tag of it; None means the newest.
            fresh: whether the owner answers, and no follower.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the version, or there is no such tag.
        """
        if (pixels := one_image_bytes(images)) is not None:
            return self._carry_out(calls.predict_bytes(self._exchanges, pixels, version, fresh))
        rows = to_images(images)
        return self._carry_out(calls.predict(self._exchanges, rows, version, fresh))

    def predict_stream(self, batches: Iterable[ArrayLike]) -> Iterator[Prediction]:
        """Yield the prediction for each batch in order, over one stream.

        Args:
            batches: images as in `predict`, up to 85,000 a batch. What they raise is raised.

        Raises:
            InvalidInput: a batch is not valid.
        """
        yield from self._predict_stream(iterate(batches))

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
    ) -> TrainingRun:
        """Start a training run, or continue an interrupted one, and return it.

        Iterate over the run for the progress of each epoch, or call its `wait`.

        Args:
            epochs: 1 to 1,000,000.
            learning_rate: above 0; the server's default is 1.0.
            batch_size: 1 to 12,396; the server's default is 256.
            seed: the seed of the shuffling; the server's default is 42.
            name: a label of the run, up to 128 characters.
            schedule: how the learning rate changes from epoch to epoch; the contract,
                mnist37.proto, has the formulas. The default is "constant".
            final_learning_rate: the rate of the last epoch, for "linear" and "cosine".
            warmup_epochs: epochs in which the rate rises to `learning_rate`; the default is 0.
            patience: end the run after so many epochs without a lower validation loss.
            min_delta: by how much a loss must be lower, with `patience`; the default is 0.
            request_id: up to 128 characters; the id of an interrupted run, with the same values,
                continues that run.

        Raises:
            InvalidInput: an argument is not valid. The iteration and `wait` raise it too, if only
                the server finds that.
            AlreadyExists: the request_id belongs to another write; from the iteration and `wait`.
            Aborted: the run cannot be continued, as the model has changed since; from them too.
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
        return TrainingRun(
            partial(self._invoke, "Train", request),
            ProgressBuffer(request, self._exchanges.session),
            self.address,
            self._retry_policy,
            self.runs,
            self.watch_run,
        )

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
            request_id: up to 128 characters; makes the call safe to repeat: the server does a step
                of one id once.

        Raises:
            InvalidInput: an argument is not valid.
            AlreadyExists: the request_id belongs to another write.
        """
        exchange = calls.step(self._exchanges, images, labels, learning_rate, request_id)
        return self._carry_out(exchange)

    def get_loss(
        self,
        split: SplitName | None = None,
        *,
        images: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        version: int | str | None = None,
        fresh: bool = False,
    ) -> Loss:
        """Return the mean loss and the accuracy on a split of the server's images, or on yours.

        Args:
            split: "train" or "valid".
            images: your own images, as in `predict`, instead of a split.
            labels: (N,), 1 for a three and 0 for a seven.
            version: a retained version or a tag of it; None means the newest.
            fresh: whether the owner answers, and no follower.

        Raises:
            InvalidInput: an argument is not valid, or not one of split and images is given.
            NotFound: the server does not retain the version, or there is no such tag.
        """
        exchange = calls.get_loss(self._exchanges, split, images, labels, version, fresh)
        return self._carry_out(exchange)

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
            request_id: up to 128 characters; makes the call safe to repeat.

        Raises:
            InvalidInput: an argument is not valid.
            AlreadyExists: the request_id belongs to another write.
        """
        return self._carry_out(calls.initialize(self._exchanges, seed, std, request_id))

    def get_model(self, *, version: int | str | None = None, fresh: bool = False) -> Model:
        """Return the parameters of a version: float32, weights (784,) and a bias.

        Args:
            version: a retained version or a tag of it; None means the newest.
            fresh: whether the owner answers, and no follower.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the version, or there is no such tag.
        """
        return self._carry_out(calls.get_model(self._exchanges, version, fresh))

    def versions(self, limit: int | None = None) -> list[Version]:
        """Return the retained versions, newest first.

        Args:
            limit: the most versions to return; None means all.

        Raises:
            InvalidInput: the limit is not valid.
        """
        return self._carry_out(calls.versions(limit))

    def restore(self, version: int | str, *, request_id: str | None = None) -> int:
        """Make a retained version's parameters the model's again and return the new version.

        Args:
            version: a retained version, or a tag of it.
            request_id: up to 128 characters; makes the call safe to repeat.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the server does not retain the version, or there is no such tag.
            AlreadyExists: the request_id belongs to another write.
        """
        return self._carry_out(calls.restore(self._exchanges, version, request_id))

    def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Replace the model's weights and its bias, and return the new version.

        Args:
            weights: 784 finite numbers, (784,) or (784, 1).
            bias: one finite number.
            request_id: up to 128 characters; makes the call safe to repeat.

        Raises:
            InvalidInput: an argument is not valid.
            AlreadyExists: the request_id belongs to another write.
        """
        return self._carry_out(calls.import_model(self._exchanges, weights, bias, request_id))
