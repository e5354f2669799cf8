"""Messages to requests, and answers to messages."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.errors import InvalidArgument
from mnist37_server.live_model import Split
from mnist37_server.requests import Batch, Initialize, Progress, Step, Train, check_request_id

T = TypeVar("T", int, float, str)

SPLITS = {pb.SPLIT_TRAIN: Split.TRAIN, pb.SPLIT_VALID: Split.VALID}


def given(message: Message, field: str, default: T) -> T:
    """The value of an optional field, or its default where it is unset."""
    value: T = getattr(message, field)
    return value if message.HasField(field) else default


def request_id(message: pb.StepRequest | pb.TrainRequest | pb.InitializeRequest) -> str | None:
    """The id of a write, checked; None where there is none."""
    if not message.HasField("request_id"):
        return None
    check_request_id(message.request_id)
    return message.request_id


def version(message: pb.PredictRequest | pb.GetLossRequest) -> int | None:
    """The version that a read asks for; None for the newest."""
    return message.version if message.HasField("version") else None


def batch(message: pb.Batch) -> Batch:
    """Raises InvalidArgument unless the pixels are images and the labels are theirs."""
    return Batch(message.pixels, message.labels)


def step(message: pb.StepRequest) -> Step:
    """Raises InvalidArgument, as do those below, where a value is out of its range."""
    return Step(
        batch(message.batch) if message.HasField("batch") else None,
        given(message, "learning_rate", Step.learning_rate),
    )


def train(message: pb.TrainRequest) -> Train:
    """As `step`; `epochs` must be set."""
    if not message.HasField("epochs"):
        raise InvalidArgument("epochs", "is missing", "must be 1 to 1,000,000")
    return Train(
        message.epochs,
        given(message, "learning_rate", Train.learning_rate),
        given(message, "batch_size", Train.batch_size),
        given(message, "seed", Train.seed),
    )


def initialize(message: pb.InitializeRequest) -> Initialize:
    """As `step`."""
    return Initialize(
        given(message, "seed", Initialize.seed), given(message, "std", Initialize.std)
    )


def examples(message: pb.GetLossRequest) -> Split | Batch:
    """What a loss is asked of: one of the resident sets, or a batch of the caller's."""
    asked = message.WhichOneof("on")
    if asked == "batch":
        return batch(message.batch)
    right = "set split to SPLIT_TRAIN or SPLIT_VALID, or send a batch"
    if asked is None:
        raise InvalidArgument("split", "neither split nor batch is set", right)
    if message.split not in SPLITS:
        raise InvalidArgument("split", f"got {message.split}", right)
    return SPLITS[message.split]


def progress(answer: Progress) -> pb.TrainResponse:
    """An epoch's message."""
    elapsed = Duration()
    elapsed.FromNanoseconds(round(answer.elapsed * 1e9))
    return pb.TrainResponse(**{**answer._asdict(), "elapsed": elapsed})
