"""What is said in each call, without saying it: the requests, and what is made of the answers.

An exchange is a generator that gives requests, is sent the response to each, and returns a result.
Client and AsyncClient carry it out; they differ by `await`.
"""

from __future__ import annotations

import reprlib
import secrets
import time
from collections.abc import Generator, Sequence
from typing import Literal, TypeVar

import numpy as np
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike, NDArray

from mnist37_client._rpc.progress import parse_epochs
from mnist37_client.errors import InvalidInput
from mnist37_client.images import PIXELS, to_images, to_labels
from mnist37_client.results import Loss, Model, Prediction, Progress, Run, StepResult, Version

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
Exchange = Generator[Request, Response, Result]

SplitName = Literal["train", "valid"]
SPLITS: dict[SplitName, pb.Split] = {"train": pb.SPLIT_TRAIN, "valid": pb.SPLIT_VALID}

MESSAGE_BYTES_MAX = 64 * 2**20  # bytes
# A message also has a few bytes of its own, and a batch a byte more an image, for its label.
IMAGES_MAX = (MESSAGE_BYTES_MAX - 1024) // (PIXELS + 1)
IMAGES_PER_MESSAGE = 16_384  # how many go in each, where there are more than that

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A run may be silent for long, and its server's machine gone: while there are calls, a server
    # that is silent for half a minute is asked for a sign of life, and has 20 s to give one.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # the one that the core of 1.85 goes by
    ("grpc.http2.max_pings_without_data", 0),  # no fewer the longer it lasts
    # How long one attempt to connect may take: an address that never answers fails in 2.5 s.
    ("grpc.min_reconnect_backoff_ms", 2_500),
    # After a refused connection the next attempt comes soon: a server may be starting.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def predict(
    images: ArrayLike, version: int | None
) -> Exchange[pb.PredictRequest, pb.PredictResponse, Prediction]:
    """Predict, in as many messages as it takes; all are answered from the first one's version."""
    probabilities = []
    for part in split_images(to_images(images)):
        response = yield predict_request(part, version)
        probabilities.append(response.probabilities)
        version = response.version
    assert version is not None
    return Prediction(np.concatenate(probabilities, dtype=np.float32), version)


def predict_request(images: NDArray[np.uint8], version: int | None = None) -> pb.PredictRequest:
    """One message of images (N, 784).

    Raises:
        InvalidInput: there are more than a message holds.
    """
    if len(images) > IMAGES_MAX:
        raise InvalidInput(f"images: got {len(images):,}; a message holds {IMAGES_MAX:,}")
    return build_message(pb.PredictRequest, pixels=images.tobytes(), version=version)


def parse_prediction(response: pb.PredictResponse) -> Prediction:
    """The result of one message."""
    return Prediction(np.array(response.probabilities, np.float32), response.version)


def get_loss(
    split: SplitName | None,
    images: ArrayLike | None,
    labels: ArrayLike | None,
    version: int | None,
) -> Exchange[pb.GetLossRequest, pb.GetLossResponse, Loss]:
    """GetLoss, in as many messages as it takes, from one version."""
    if split is not None:
        if images is not None or labels is not None:
            raise InvalidInput("split: got images too; give either a split, or images and labels")
        if not isinstance(split, str) or split not in SPLITS:
            raise InvalidInput(f"split: got {split!r}; must be 'train' or 'valid'")
        response = yield build_message(pb.GetLossRequest, split=SPLITS[split], version=version)
        return Loss(response.loss, response.accuracy, response.count, response.version)
    if images is None and labels is None:
        raise InvalidInput("split: missing; must be 'train' or 'valid', or give images and labels")
    pixels, marks = _examples(images, labels)
    if len(marks) != len(pixels):
        raise InvalidInput(f"labels: got {len(marks):,} for {len(pixels):,} images")
    loss = accuracy = 0.0
    start = 0
    for part in split_images(pixels):
        batch = pb.Batch(pixels=part.tobytes(), labels=marks[start : start + len(part)])
        response = yield build_message(pb.GetLossRequest, batch=batch, version=version)
        version = response.version
        loss += response.loss * len(part)
        accuracy += response.accuracy * len(part)
        start += len(part)
    assert version is not None
    return Loss(loss / start, accuracy / start, start, version)


def step(
    images: ArrayLike | None,
    labels: ArrayLike | None,
    learning_rate: float | None,
    request_id: str | None,
) -> Exchange[pb.StepRequest, pb.StepResponse, StepResult]:
    """Step, on the given batch or on the server's next mini-batch."""
    batch = None
    if images is not None or labels is not None:
        pixels, marks = _examples(images, labels)
        if len(pixels) > IMAGES_MAX:
            raise InvalidInput(
                f"images: got {len(pixels):,}; one step takes at most {IMAGES_MAX:,}"
            )
        batch = pb.Batch(pixels=pixels.tobytes(), labels=marks)
    response = yield build_message(
        pb.StepRequest,
        batch=batch,
        learning_rate=learning_rate,
        request_id=ensure_request_id(request_id),
    )
    return StepResult(response.loss, response.version)


def initialize(
    seed: int | None, std: float | None, request_id: str | None
) -> Exchange[pb.InitializeRequest, pb.InitializeResponse, int]:
    """Initialize; returns the version."""
    response = yield build_message(
        pb.InitializeRequest,
        seed=seed,
        std=std,
        request_id=ensure_request_id(request_id),
    )
    return response.version


def restore(
    version: int, request_id: str | None
) -> Exchange[pb.RestoreRequest, pb.RestoreResponse, int]:
    """Restore; returns the new version."""
    response = yield build_message(
        pb.RestoreRequest, version=version, request_id=ensure_request_id(request_id)
    )
    return response.version


def import_model(
    weights: ArrayLike, bias: ArrayLike, request_id: str | None
) -> Exchange[pb.ImportRequest, pb.ImportResponse, int]:
    """Import; returns the new version."""
    parameters = []
    for name, values, count in (("weights", weights, PIXELS), ("bias", bias, 1)):
        array = np.asarray(values)
        if array.size != count or array.dtype.kind not in "iuf":
            raise InvalidInput(
                f"{name}: got {array.dtype} of shape {array.shape}; must be {count} numbers"
            )
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused as such
            parameters.append(array.reshape(-1).astype("<f4"))
    response = yield build_message(
        pb.ImportRequest,
        weights=parameters[0].tobytes(),
        bias=float(parameters[1][0]),
        request_id=ensure_request_id(request_id),
    )
    return response.version


def versions(
    limit: int | None,
) -> Exchange[pb.ListVersionsRequest, pb.ListVersionsResponse, list[Version]]:
    """ListVersions."""
    response = yield build_message(pb.ListVersionsRequest, limit=limit)
    return [Version.of(found) for found in response.versions]


def runs() -> Exchange[pb.ListRunsRequest, pb.ListRunsResponse, list[Run]]:
    """ListRuns."""
    response = yield pb.ListRunsRequest()
    return [Run.of(found) for found in response.runs]


def watch_request(run: int | None, follow: bool) -> pb.WatchRunRequest:
    """The request to look at a run."""
    return build_message(pb.WatchRunRequest, run=run, follow=follow, coalesce=True)


def parse_watch_response(response: pb.WatchRunResponse) -> Sequence[Run | Progress]:
    """What one message says of a run."""
    if response.WhichOneof("what") == "run":
        return [Run.of(response.run)]
    return parse_epochs(response.progress)


def get_model(
    version: int | None,
) -> Exchange[pb.GetModelRequest, pb.GetModelResponse, Model]:
    """GetModel."""
    response = yield build_message(pb.GetModelRequest, version=version)
    return Model(
        np.frombuffer(response.weights, "<f4").astype(np.float32),
        np.float32(response.bias),
        response.version,
        response.digest,
        response.device,
    )


def train_request(
    epochs: int,
    learning_rate: float | None,
    batch_size: int | None,
    seed: int | None,
    request_id: str | None,
) -> pb.TrainRequest:
    """The request that begins a run, or goes on with one."""
    return build_message(
        pb.TrainRequest,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        request_id=ensure_request_id(request_id),
        coalesce=True,
    )


def check_address(address: str) -> str:
    """Raises InvalidInput unless the address is HOST:PORT; gRPC would look for it elsewhere."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InvalidInput(f"address: got {address!r}; must be HOST:PORT, PORT from 1 to 65535")
    return address


def ensure_request_id(request_id: str | None) -> str:
    """The id, or a new one for a write whose caller gave none: any write can be sent again."""
    if request_id is not None:
        return request_id
    # By the time, so that ids of a while are neighbours in the server's index, and stored sooner.
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


M = TypeVar("M")


def build_message(kind: type[M], **values: object) -> M:
    """A message with the values that are not None; the others are left to the server's defaults.

    Raises:
        InvalidInput: a value is not of its field's kind, or a whole number too large for it.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{name}: got {reprlib.repr(value)}; {error}") from error
    return kind(**given)


def split_images(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The images in pieces that fit a message; all of them in one where they do."""
    if len(images) <= IMAGES_PER_MESSAGE:
        return [images]
    return [
        images[start : start + IMAGES_PER_MESSAGE]
        for start in range(0, len(images), IMAGES_PER_MESSAGE)
    ]


def _examples(
    images: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.uint8], bytes]:
    if images is None or labels is None:
        missing = "labels" if labels is None else "images"
        raise InvalidInput(f"{missing}: missing; a batch needs images and labels")
    return to_images(images), to_labels(labels)
