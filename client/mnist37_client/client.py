"""The client for threads and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from numpy.typing import ArrayLike

from mnist37_client._rpc.channel import ConnectionSettings, Pem, ReplicaNames
from mnist37_client._rpc.messages import requests
from mnist37_client._rpc.methods import calls
from mnist37_client._rpc.methods.calls import RunStateName, ScheduleName, SplitName
from mnist37_client._rpc.methods.progress import ProgressBuffer
from mnist37_client._rpc.methods.streams import WatchedRun, iterate
from mnist37_client._rpc.transport.blocking_calls import BlockingCalls
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
from mnist37_client.runs.training_run import TrainingRun

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 60.0


class Client(BlockingCalls):
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
            request_id: makes the call safe to repeat: the server does a step of one id once.
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
            request_id: makes the call safe to repeat.
        """
        return self._carry_out(calls.initialize(self._exchanges, seed, std, request_id))

    def get_model(self, *, version: int | str | None = None, fresh: bool = False) -> Model:
        """Return the parameters of the newest version, or of a retained one or a tag."""
        return self._carry_out(calls.get_model(self._exchanges, version, fresh))

    def versions(self, limit: int | None = None) -> list[Version]:
        """Return the retained versions, newest first, at most `limit`."""
        return self._carry_out(calls.versions(limit))

    def restore(self, version: int | str, *, request_id: str | None = None) -> int:
        """Make a retained version's parameters the model's again and return the new version."""
        return self._carry_out(calls.restore(self._exchanges, version, request_id))

    def import_model(
        self, weights: ArrayLike, bias: ArrayLike, *, request_id: str | None = None
    ) -> int:
        """Replace the model's 784 weights and its bias, and return the new version."""
        return self._carry_out(calls.import_model(self._exchanges, weights, bias, request_id))

    def tag_version(
        self, name: str, version: int | str | None = None, *, request_id: str | None = None
    ) -> int:
        """Point a tag to a version, which the server then retains, and return the version.

        Every method that takes a version also takes a tag. A tag that exists is moved.

        Args:
            name: 1 to 128 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`, not all digits.
            version: a retained version, or another tag of it; None means the newest.
            request_id: makes the call safe to repeat.
        """
        return self._carry_out(calls.tag_version(self._exchanges, name, version, request_id))

    def followers(self) -> list[Follower]:
        """Return the followers that the server sends its versions to, the first one first."""
        return self._carry_out(calls.followers())

    def tags(self) -> list[Tag]:
        """Return the tags by name, then the server's `best@RUN`, newest run first."""
        return self._carry_out(calls.tags())

    def delete_tag(self, name: str, *, request_id: str | None = None) -> int:
        """Delete a tag and return the version to which it pointed."""
        return self._carry_out(calls.delete_tag(self._exchanges, name, request_id))

    def runs(
        self,
        *,
        name: str | None = None,
        state: RunStateName | None = None,
        limit: int | None = calls.RUNS,
    ) -> list[Run]:
        """Return training runs, newest first; those that wait for their turn come before.

        Args:
            name: only runs with this name; None means all.
            state: only runs in this state; None means all.
            limit: the most runs to return; None means all that the server retains.
        """
        return self._carry_out(calls.runs(name, state, limit))

    def watch_run(
        self, run: int | None = None, *, follow: bool = False
    ) -> Iterator[Run | Progress]:
        """Yield a run, then its curve: the progress of all epochs up to 1,000.

        Of a longer run: every second or every fourth and so on, always the first and the last.

        Args:
            run: the run's number; None means the newest run.
            follow: then also yield each new epoch, and the run again at its end. To watch a run
                does not keep it alive: a run stops when only watchers are left.
        """
        watched = WatchedRun(run, self._exchanges.session)
        for content in self._stream("WatchRun", requests.watch_request(run, follow)):
            yield from watched.parse(content)
