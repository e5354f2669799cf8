"""The requests of each call and the results of its responses, without I/O.

An exchange is a generator that yields requests, receives the response to each, and returns a
result. Client and AsyncClient carry it out; they differ by `await`.
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

from mnist37_client._rpc import address
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

MESSAGE_BYTES_MAX = 64 * 2**20
# A message has a few bytes of overhead, and a batch has one more byte an image, for the label.
IMAGES_MAX = (MESSAGE_BYTES_MAX - 1024) // (PIXELS + 1)
IMAGES_PER_CHUNK = 16_384  # images a message, if a call has more than that

check_address = address.check_address

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A run may be silent for a long time, and the server's machine may be lost. So while calls are
    # in flight, the client pings a server that is silent for 30 s, which has 20 s to answer.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # the one that the core of grpcio 1.85 uses
    ("grpc.http2.max_pings_without_data", 0),  # no limit: ping as long as the silence lasts
    # The time limit of one attempt to connect: an address that never answers fails in 2.5 s.
    ("grpc.min_reconnect_backoff_ms", 2_500),
    # After a refused connection the next attempt follows soon: a server may be starting.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def predict(
    images: ArrayLike, version: int | None
) -> Exchange[pb.PredictRequest, pb.PredictResponse, Prediction]:
    """Call Predict, in as many messages as needed, all of one version."""
    probabilities = []
    for chunk in split_images(to_images(images)):
        response = yield predict_request(chunk, version)
        probabilities.append(response.probabilities)
        version = response.version  # of the first response, for all further messages
    assert version is not None
    return Prediction(np.concatenate(probabilities, dtype=np.float32), version)


def predict_request(images: NDArray[np.uint8], version: int | None = None) -> pb.PredictRequest:
    """Return a request with images (N, 784).

    Raises:
        InvalidInput: one message cannot hold so many images.
    """
    if len(images) > IMAGES_MAX:
        raise InvalidInput(f"images: got {len(images):,}; a message holds {IMAGES_MAX:,}")
    return build_message(pb.PredictRequest, pixels=images.tobytes(), version=version)


def parse_prediction(response: pb.PredictResponse) -> Prediction:
    """Return the result of one message."""
    return Prediction(np.array(response.probabilities, np.float32), response.version)


def get_loss(
    split: SplitName | None,
    images: ArrayLike | None,
    labels: ArrayLike | None,
    version: int | None,
) -> Exchange[pb.GetLossRequest, pb.GetLossResponse, Loss]:
    """Call GetLoss, in as many messages as needed, all of one version."""
    if split is not None:
        if images is not None or labels is not None:
            raise InvalidInput("split: got images too; give either a split, or images and labels")
        if not isinstance(split, str) or split not in SPLITS:
            raise InvalidInput(f"split: got {split!r}; must be 'train' or 'valid'")
        response = yield build_message(pb.GetLossRequest, split=SPLITS[split], version=version)
        return Loss(response.loss, response.accuracy, response.count, response.version)
    if images is None and labels is None:
        raise InvalidInput("split: missing; must be 'train' or 'valid', or give images and labels")
    pixels, label_bytes = _convert_batch(images, labels)
    if len(label_bytes) != len(pixels):
        raise InvalidInput(f"labels: got {len(label_bytes):,} for {len(pixels):,} images")
    loss = accuracy = 0.0
    start = 0
    for chunk in split_images(pixels):
        batch = pb.Batch(pixels=chunk.tobytes(), labels=label_bytes[start : start + len(chunk)])
        response = yield build_message(pb.GetLossRequest, batch=batch, version=version)
        version = response.version
        loss += response.loss * len(chunk)
        accuracy += response.accuracy * len(chunk)
        start += len(chunk)
    assert version is not None
    return Loss(loss / start, accuracy / start, start, version)


def step(
    images: ArrayLike | None,
    labels: ArrayLike | None,
    learning_rate: float | None,
    request_id: str | None,
) -> Exchange[pb.StepRequest, pb.StepResponse, StepResult]:
    """Call Step, on the given batch or on the server's next mini-batch."""
    batch = None
    if images is not None or labels is not None:
        pixels, label_bytes = _convert_batch(images, labels)
        if len(pixels) > IMAGES_MAX:
            raise InvalidInput(
                f"images: got {len(pixels):,}; one step takes at most {IMAGES_MAX:,}"
            )
        batch = pb.Batch(pixels=pixels.tobytes(), labels=label_bytes)
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
    """Call Initialize and return the new version."""
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
    """Call Restore and return the new version."""
    response = yield build_message(
        pb.RestoreRequest, version=version, request_id=ensure_request_id(request_id)
    )
    return response.version


def import_model(
    weights: ArrayLike, bias: ArrayLike, request_id: str | None
) -> Exchange[pb.ImportRequest, pb.ImportResponse, int]:
    """Call Import and return the new version."""
    parameters = []
    for name, values, count in (("weights", weights, PIXELS), ("bias", bias, 1)):
        array = np.asarray(values)
        if array.size != count or array.dtype.kind not in "iuf":
            raise InvalidInput(
                f"{name}: got {array.dtype} of shape {array.shape}; must be {count} numbers"
            )
        with np.errstate(over="ignore"):  # too large a value becomes inf, which the server refuses
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
    """Call ListVersions and return the versions."""
    response = yield build_message(pb.ListVersionsRequest, limit=limit)
    return [Version.of(message) for message in response.versions]


def runs() -> Exchange[pb.ListRunsRequest, pb.ListRunsResponse, list[Run]]:
    """Call ListRuns and return the runs."""
    response = yield pb.ListRunsRequest()
    return [Run.of(message) for message in response.runs]


def watch_request(run: int | None, follow: bool) -> pb.WatchRunRequest:
    """Return the request that watches a run."""
    return build_message(pb.WatchRunRequest, run=run, follow=follow, coalesce=True)


def parse_watch_response(response: pb.WatchRunResponse) -> Sequence[Run | Progress]:
    """Return the run or the epochs in a message."""
    if response.WhichOneof("what") == "run":
        return [Run.of(response.run)]
    return parse_epochs(response.progress)


def get_model(
    version: int | None,
) -> Exchange[pb.GetModelRequest, pb.GetModelResponse, Model]:
    """Call GetModel and return the parameters."""
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
    """Return the request that starts a run or continues an interrupted one."""
    return build_message(
        pb.TrainRequest,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        request_id=ensure_request_id(request_id),
        coalesce=True,
    )


def ensure_request_id(request_id: str | None) -> str:
    """Return the id, or a new one for None: with an id the client can repeat any write."""
    if request_id is not None:
        return request_id
    # The time comes first, so that ids of one period share pages of the server's index: that makes
    # commits faster.
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


M = TypeVar("M")


def build_message(kind: type[M], **values: object) -> M:
    """Return a message with the values that are not None; the server has defaults for the others.

    Raises:
        InvalidInput: a value has another type than its field, or is an integer out of its range.
    """
    fields = {name: value for name, value in values.items() if value is not None}
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{name}: got {reprlib.repr(value)}; {error}") from error
    return kind(**fields)


def split_images(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the images in chunks that fit a message; one chunk if all of them fit."""
    if len(images) <= IMAGES_PER_CHUNK:
        return [images]
    return [
        images[start : start + IMAGES_PER_CHUNK]
        for start in range(0, len(images), IMAGES_PER_CHUNK)
    ]


def _convert_batch(
    images: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.uint8], bytes]:
    if images is None or labels is None:
        missing = "labels" if labels is None else "images"
        raise InvalidInput(f"{missing}: missing; a batch needs images and labels")
    return to_images(images), to_labels(labels)
