"""The messages of requests, made of a caller's arguments, which are checked."""

from __future__ import annotations

import reprlib
import secrets
import time
from typing import Any, TypeVar

import numpy as np
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike, NDArray

from mnist37_client.errors import InvalidInput, one_line
from mnist37_client.images import PIXELS, to_images, to_labels, to_parameters

MESSAGE_BYTES_MAX = 64 * 2**20
# A message has a few bytes of overhead, and a batch has one more byte an image, for the label.
IMAGES_MAX = (MESSAGE_BYTES_MAX - 1024) // (PIXELS + 1)
IMAGES_PER_CHUNK = 16_384  # images a message, if a call has more than that

FLAGS = {"follow", "coalesce"}  # the fields of requests that are bool

SCHEDULES: dict[str, pb.Schedule] = {
    "constant": pb.SCHEDULE_CONSTANT,
    "linear": pb.SCHEDULE_LINEAR,
    "cosine": pb.SCHEDULE_COSINE,
}
RUN_STATES: dict[str, pb.RunState] = {
    "queued": pb.RUN_STATE_QUEUED,
    "running": pb.RUN_STATE_RUNNING,
    "finished": pb.RUN_STATE_FINISHED,
    "interrupted": pb.RUN_STATE_INTERRUPTED,
}

M = TypeVar("M")


def build_message(kind: type[M], **values: object) -> M:
    """Return a message with the values that are not None; the server has defaults for the others.

    Raises:
        InvalidInput: a value has another type than its field, or is an integer out of its range.
    """
    fields = {name: value for name, value in values.items() if value is not None}
    for name, value in fields.items():
        # A value decides itself how it becomes a number, and may raise anything.
        try:
            fields[name] = plain = _plain(value)
            if isinstance(plain, bool) and name not in FLAGS:
                raise TypeError("must be no bool")  # protobuf takes True for the number 1.0
            kind(**{name: plain})
        except Exception as error:
            text = one_line(f"{reprlib.repr(value)}; {error}")
            raise InvalidInput(f"{name}: got {text}") from error
    return kind(**fields)


def _plain(value: Any) -> object:  # noqa: ANN401 - the client knows no torch
    """Return the number in an array or a tensor of one number without dimensions."""
    detach = getattr(value, "detach", None)  # without it, a tensor that requires grad warns
    number = value if detach is None else detach()
    return number.item() if getattr(number, "ndim", None) == 0 else number


def name_version(version: int | str | None) -> dict[str, object]:
    """Return the fields of a request that names a version: by its number, or by a tag."""
    return {"tag": version} if isinstance(version, str) else {"version": version}


def predict_request(
    images: NDArray[np.uint8], version: int | str | None = None
) -> pb.PredictRequest:
    """Return a request with images (N, 784).

    Raises:
        InvalidInput: one message cannot hold so many images.
    """
    if len(images) > IMAGES_MAX:
        raise InvalidInput(f"images: got {len(images):,}; a message holds {IMAGES_MAX:,}")
    return build_message(pb.PredictRequest, pixels=images.tobytes(), **name_version(version))


def step_request(
    images: ArrayLike | None,
    labels: ArrayLike | None,
    learning_rate: float | None,
    request_id: str | None,
) -> pb.StepRequest:
    """Return the request of a step on the given batch, or on the server's next mini-batch."""
    batch = None
    if images is not None or labels is not None:
        pixels, label_bytes = convert_batch(images, labels)
        if len(pixels) > IMAGES_MAX:
            raise InvalidInput(
                f"images: got {len(pixels):,}; one step takes at most {IMAGES_MAX:,}"
            )
        batch = pb.Batch(pixels=pixels.tobytes(), labels=label_bytes)
    return build_message(
        pb.StepRequest,
        batch=batch,
        learning_rate=learning_rate,
        request_id=ensure_request_id(request_id),
    )


def import_request(weights: ArrayLike, bias: ArrayLike, request_id: str | None) -> pb.ImportRequest:
    """Return the request that replaces the parameters."""
    return build_message(
        pb.ImportRequest,
        weights=to_parameters("weights", weights, PIXELS).tobytes(),
        bias=float(to_parameters("bias", bias, 1)[0]),
        request_id=ensure_request_id(request_id),
    )


def train_request(
    epochs: int, schedule: str | None, request_id: str | None, **settings: object
) -> pb.TrainRequest:
    """Return the request that starts a run or continues an interrupted one.

    Args:
        epochs: how many epochs.
        schedule: how the learning rate changes: "constant", "linear" or "cosine".
        request_id: the id of the write.
        settings: further fields of the request; None leaves a field out.
    """
    if schedule is not None and (not isinstance(schedule, str) or schedule not in SCHEDULES):
        names = ", ".join(map(repr, SCHEDULES))
        raise InvalidInput(f"schedule: got {reprlib.repr(schedule)}; must be one of {names}")
    return build_message(
        pb.TrainRequest,
        epochs=epochs,
        schedule=None if schedule is None else SCHEDULES[schedule],
        request_id=ensure_request_id(request_id),
        coalesce=True,
        **settings,
    )


def check_limit(limit: int | None) -> int | None:
    """Return the most entries of a list; None means all.

    Raises:
        InvalidInput: it is no whole number, or below 1.
    """
    # As a field of a request, so that the limit may be what any other number may be.
    number = build_message(pb.ListVersionsRequest, limit=limit).limit
    if limit is not None and number < 1:
        raise InvalidInput(f"limit: got {number}; must be at least 1")
    return None if limit is None else number


def runs_request(
    name: str | None, state: str | None, page_size: int, page_token: str
) -> pb.ListRunsRequest:
    """Return the request for a page of runs, of all names or states for None."""
    if state is not None and (not isinstance(state, str) or state not in RUN_STATES):
        names = ", ".join(map(repr, RUN_STATES))
        raise InvalidInput(f"state: got {reprlib.repr(state)}; must be one of {names}")
    return build_message(
        pb.ListRunsRequest,
        name=name,
        states=None if state is None else [RUN_STATES[state]],
        page_size=page_size,
        page_token=page_token,
    )


def watch_request(run: int | None, follow: bool) -> pb.WatchRunRequest:
    """Return the request that watches a run."""
    return build_message(pb.WatchRunRequest, run=run, follow=follow, coalesce=True)


def ensure_request_id(request_id: str | None) -> str:
    """Return the id, or a new one for None: with an id the client can repeat any write."""
    if request_id is not None:
        return request_id
    # The time comes first, so that ids of one period share pages of the server's index: that makes
    # commits faster.
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def split_images(
    images: NDArray[np.uint8], size: int = IMAGES_PER_CHUNK
) -> list[NDArray[np.uint8]]:
    """Return the images in chunks of at most `size`; one chunk if all of them fit."""
    if len(images) <= size:
        return [images]
    return [images[start : start + size] for start in range(0, len(images), size)]


def convert_batch(
    images: ArrayLike | None, labels: ArrayLike | None
) -> tuple[NDArray[np.uint8], bytes]:
    if images is None or labels is None:
        missing = "labels" if labels is None else "images"
        raise InvalidInput(f"{missing}: missing; a batch needs images and labels")
    return to_images(images), to_labels(labels)
