"""The methods of both clients as exchanges, without I/O."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Literal

import numpy as np
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike, NDArray

from mnist37_client._rpc.messages import requests, responses
from mnist37_client._rpc.messages.requests import (
    MESSAGE_BYTES_MAX,
    build_message,
    ensure_request_id,
    name_version,
)
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges, Result, WriteAnswer
from mnist37_client.errors import DeadlineExceeded, InvalidInput, Mnist37Error
from mnist37_client.images import PIXELS
from mnist37_client.results import (
    Follower,
    Loss,
    Model,
    Prediction,
    Run,
    StepResult,
    Tag,
    Version,
)

RUNS = 100  # of a list, by default
RUNS_PER_PAGE = 1_000  # at most

ScheduleName = Literal["constant", "linear", "cosine"]
RunStateName = Literal["queued", "running", "finished", "interrupted"]
SplitName = Literal["train", "valid"]
SPLITS: dict[SplitName, pb.Split] = {"train": pb.SPLIT_TRAIN, "valid": pb.SPLIT_VALID}

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


def predict_bytes(
    exchanges: Exchanges, pixels: bytes, version: int | str | None = None, fresh: bool = False
) -> Exchange[Prediction]:
    """Call Predict for images of 784 bytes each that fit one message."""
    if version is None:  # mostly it is: no argument to check
        request = pb.PredictRequest(pixels=pixels)
    else:
        request = build_message(pb.PredictRequest, pixels=pixels, **name_version(version))
    count = len(pixels) // PIXELS

    def parse(response: pb.PredictResponse) -> Prediction:
        return responses.parse_prediction(response, count, version)

    return exchanges.read("Predict", request, pb.PredictResponse, parse, fresh=fresh)


def predict(
    exchanges: Exchanges, images: NDArray[np.uint8], version: int | str | None, fresh: bool
) -> Exchange[Prediction]:
    """Call Predict for images (N, 784), in as many messages as needed, all of one version."""
    probabilities: list[NDArray[np.float32]] = []
    for chunk in requests.split_images(images, exchanges.images_per_message(fresh)):
        part = yield from exchanges.read(
            "Predict",
            requests.predict_request(chunk, version),
            pb.PredictResponse,
            partial(responses.parse_prediction, count=len(chunk), version=version),
            fresh=fresh,
            is_part=bool(probabilities),
        )
        probabilities.append(part.probabilities)
        version = part.version  # of the first response, for all further messages
    assert isinstance(version, int)
    return Prediction(np.concatenate(probabilities), version)


def get_loss(
    exchanges: Exchanges,
    split: SplitName | None,
    images: ArrayLike | None,
    labels: ArrayLike | None,
    version: int | str | None,
    fresh: bool,
) -> Exchange[Loss]:
    """Call GetLoss, in as many messages as needed, all of one version."""
    if split is not None:
        if images is not None or labels is not None:
            raise InvalidInput("split: got images too; give either a split, or images and labels")
        if not isinstance(split, str) or split not in SPLITS:
            raise InvalidInput(f"split: got {reprlib.repr(split)}; must be 'train' or 'valid'")
        request = build_message(pb.GetLossRequest, split=SPLITS[split], **name_version(version))
        return (yield from _get_loss(exchanges, request, None, version, fresh, False))
    if images is None and labels is None:
        raise InvalidInput("split: missing; must be 'train' or 'valid', or give images and labels")
    pixels, label_bytes = requests.convert_batch(images, labels)
    if len(label_bytes) != len(pixels):
        raise InvalidInput(f"labels: got {len(label_bytes):,} for {len(pixels):,} images")
    parts: list[Loss] = []
    start = 0
    for chunk in requests.split_images(pixels, exchanges.images_per_message(fresh)):
        count = len(chunk)
        batch = pb.Batch(pixels=chunk.tobytes(), labels=label_bytes[start : start + count])
        request = build_message(pb.GetLossRequest, batch=batch, **name_version(version))
        part = yield from _get_loss(exchanges, request, count, version, fresh, bool(parts))
        version = part.version
        parts.append(part)
        start += count
    return Loss.over(parts)


def _get_loss(
    exchanges: Exchanges,
    request: pb.GetLossRequest,
    count: int | None,
    version: int | str | None,
    fresh: bool,
    is_part: bool,
) -> Exchange[Loss]:
    parse = partial(responses.parse_loss, count=count, version=version)
    return exchanges.read(
        "GetLoss", request, pb.GetLossResponse, parse, fresh=fresh, is_part=is_part
    )


def step(
    exchanges: Exchanges,
    images: ArrayLike | None,
    labels: ArrayLike | None,
    learning_rate: float | None,
    request_id: str | None,
) -> Exchange[StepResult]:
    """Call Step, on the given batch or on the server's next mini-batch."""
    request = requests.step_request(images, labels, learning_rate, request_id)
    return _write(exchanges, Call("Step", request), pb.StepResponse, responses.parse_step)


def initialize(
    exchanges: Exchanges, seed: int | None, std: float | None, request_id: str | None
) -> Exchange[int]:
    """Call Initialize and return the new version."""
    request = build_message(
        pb.InitializeRequest, seed=seed, std=std, request_id=ensure_request_id(request_id)
    )
    call = Call("Initialize", request)
    return _write(exchanges, call, pb.InitializeResponse, responses.parse_new_version)


def restore(exchanges: Exchanges, version: int | str, request_id: str | None) -> Exchange[int]:
    """Call Restore and return the new version."""
    request = build_message(
        pb.RestoreRequest, request_id=ensure_request_id(request_id), **name_version(version)
    )
    call = Call("Restore", request)
    return _write(exchanges, call, pb.RestoreResponse, responses.parse_new_version)


def import_model(
    exchanges: Exchanges, weights: ArrayLike, bias: ArrayLike, request_id: str | None
) -> Exchange[int]:
    """Call Import and return the new version."""
    call = Call("Import", requests.import_request(weights, bias, request_id))
    return _write(exchanges, call, pb.ImportResponse, responses.parse_new_version)


def versions(limit: int | None) -> Exchange[list[Version]]:
    """Call ListVersions and return the versions."""
    request = build_message(pb.ListVersionsRequest, limit=limit)
    return responses.parse_versions((yield Call("ListVersions", request)), limit)


def tag_version(
    exchanges: Exchanges, name: str, version: int | str | None, request_id: str | None
) -> Exchange[int]:
    """Call TagVersion and return the version."""
    request = build_message(
        pb.TagVersionRequest,
        name=name,
        request_id=ensure_request_id(request_id),
        **name_version(version),
    )
    parse = partial(responses.parse_tagged_version, version=version)
    return exchanges.write(Call("TagVersion", request), pb.TagVersionResponse, parse)


def tags() -> Exchange[list[Tag]]:
    """Call ListTags and return the tags."""
    return responses.parse_tags((yield Call("ListTags", pb.ListTagsRequest())))


def delete_tag(exchanges: Exchanges, name: str, request_id: str | None) -> Exchange[int]:
    """Call DeleteTag and return the version to which the tag pointed."""
    request = build_message(
        pb.DeleteTagRequest, name=name, request_id=ensure_request_id(request_id)
    )
    parse = partial(responses.parse_tagged_version, version=None)
    return exchanges.write(Call("DeleteTag", request), pb.DeleteTagResponse, parse)


def runs(
    name: str | None = None, state: str | None = None, limit: int | None = RUNS
) -> Exchange[list[Run]]:
    """Call ListRuns, for as many pages as needed, and return the runs."""
    limit = requests.check_limit(limit)
    found: list[Run] = []
    token = ""
    while True:
        left = RUNS_PER_PAGE if limit is None else min(RUNS_PER_PAGE, limit - len(found))
        request = requests.runs_request(name, state, left, token)
        page, token = responses.parse_runs((yield Call("ListRuns", request)), left, token)
        found += page
        if not token or len(found) == limit:
            return found


def followers() -> Exchange[list[Follower]]:
    """Call ListFollowers and return the followers."""
    content = yield Call("ListFollowers", pb.ListFollowersRequest())
    return responses.parse_followers(content)


def get_model(exchanges: Exchanges, version: int | str | None, fresh: bool) -> Exchange[Model]:
    """Call GetModel and return the parameters."""
    request = build_message(pb.GetModelRequest, **name_version(version))
    parse = partial(responses.parse_model, version=version)
    return exchanges.read("GetModel", request, pb.GetModelResponse, parse, fresh=fresh)


def run_ahead(runs: list[Run], request_id: str) -> Run | None:
    """Return the run under way, for which the write of this id waits; None if that is the write."""
    running = next((run for run in runs if run.state == "running"), None)
    return None if running is None or running.request_id == request_id else running


def _write(
    exchanges: Exchanges,
    call: Call,
    kind: type[WriteAnswer],
    parse: Callable[[WriteAnswer], Result],
) -> Exchange[Result]:
    """Make the call of a write; if the time is up, say which run it waited for."""
    try:
        return (yield from exchanges.write(call, kind, parse))
    except DeadlineExceeded as error:
        ahead = None
        with suppress(Mnist37Error):
            request = pb.ListRunsRequest(states=[pb.RUN_STATE_RUNNING])
            content = yield Call("ListRuns", request, is_hint=True, is_retried=False)
            running, _ = responses.parse_runs(content, RUNS)
            request_id = call.request.request_id  # type: ignore[attr-defined]
            ahead = run_ahead(running, request_id)
        if ahead is None:
            raise
        raise DeadlineExceeded(f"{error}; it waited for {ahead.position}") from error
