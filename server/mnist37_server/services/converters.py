"""Messages to requests, and answers to messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37.optimizer import Sgd
from mnist37_server.domain.commands import (
    Import,
    Initialize,
    Restore,
    Step,
    Train,
    check_request_id,
)
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.records import RunRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin
from mnist37_server.errors import InvalidArgument

T = TypeVar("T", int, float, str)

# The messages that write; all of them have a request_id.
WriteRequest = (
    pb.StepRequest | pb.TrainRequest | pb.InitializeRequest | pb.RestoreRequest | pb.ImportRequest
)

SPLITS = {pb.SPLIT_TRAIN: Split.TRAIN, pb.SPLIT_VALID: Split.VALID}

ORIGINS = {
    Origin.INITIALIZE: pb.ORIGIN_INITIALIZE,
    Origin.STEP: pb.ORIGIN_STEP,
    Origin.TRAIN: pb.ORIGIN_TRAIN,
    Origin.RESTORE: pb.ORIGIN_RESTORE,
    Origin.IMPORT: pb.ORIGIN_IMPORT,
}


def field_or_default(message: Message, field: str, default: T) -> T:
    """The value of an optional field, or its default where it is unset."""
    value: T = getattr(message, field)
    return value if message.HasField(field) else default


def parse_request_id(message: WriteRequest) -> str | None:
    """The id of a write, checked; None where there is none."""
    if not message.HasField("request_id"):
        return None
    check_request_id(name := message.request_id)
    return name


def parse_version(message: pb.GetLossRequest | pb.GetModelRequest) -> int | None:
    """The version that a read asks for; None for the newest."""
    return message.version if message.HasField("version") else None


def parse_batch(message: pb.Batch) -> Batch:
    """Raises InvalidArgument unless the pixels are images and the labels are theirs."""
    return Batch(message.pixels, message.labels)


def parse_step(message: pb.StepRequest) -> Step:
    """Raises InvalidArgument, as do those below, where a value is out of its range."""
    learning_rate = field_or_default(message, "learning_rate", Sgd.learning_rate)
    if message.HasField("batch"):
        return Step(parse_batch(message.batch), Sgd(learning_rate))
    return step_without_batch(learning_rate)


@lru_cache  # who trains step by step sends the same again and again
def step_without_batch(learning_rate: float) -> Step:
    """On the next mini-batch; raises as `step`."""
    return Step(None, Sgd(learning_rate))


def parse_train(message: pb.TrainRequest) -> Train:
    """As `step`; `epochs` must be set."""
    if not message.HasField("epochs"):
        raise InvalidArgument("epochs", "is missing", "must be 1 to 1,000,000")
    return Train(
        message.epochs,
        Sgd(field_or_default(message, "learning_rate", Sgd.learning_rate)),
        field_or_default(message, "batch_size", Train.batch_size),
        field_or_default(message, "seed", Train.seed),
    )


def parse_initialize(message: pb.InitializeRequest) -> Initialize:
    """As `step`."""
    return Initialize(
        field_or_default(message, "seed", Initialize.seed),
        field_or_default(message, "std", Initialize.std),
    )


def parse_restore(message: pb.RestoreRequest) -> Restore:
    """As `step`; `version` must be set."""
    if not message.HasField("version"):
        raise InvalidArgument("version", "is missing", "must be one that ListVersions names")
    return Restore(message.version)


def parse_import(message: pb.ImportRequest) -> Import:
    """As `step`; `bias` must be set."""
    if not message.HasField("bias"):
        raise InvalidArgument("bias", "is missing", "must be a finite number")
    return Import(message.weights, message.bias)


def parse_examples(message: pb.GetLossRequest) -> Split | Batch:
    """What a loss is asked of: one of the resident sets, or a batch of the caller's."""
    asked = message.WhichOneof("on")
    if asked == "batch":
        return parse_batch(message.batch)
    right = "set split to SPLIT_TRAIN or SPLIT_VALID, or send a batch"
    if asked is None:
        raise InvalidArgument("split", "neither split nor batch is set", right)
    if message.split not in SPLITS:
        raise InvalidArgument("split", f"got {message.split}", right)
    return SPLITS[message.split]


def version_message(kept: VersionRecord) -> pb.ModelVersion:
    """A version in a list."""
    return pb.ModelVersion(
        version=kept.version,
        origin=ORIGINS[kept.origin],
        run=kept.run,
        committed_at=timestamp_message(kept.committed_at),
    )


def run_message(record: RunRecord, under_way: bool) -> pb.Run:
    """How a run stands."""
    state = pb.RUN_STATE_FINISHED if record.finished else pb.RUN_STATE_INTERRUPTED
    return pb.Run(
        run=record.number,
        state=pb.RUN_STATE_RUNNING if under_way else state,
        request_id=record.request_id,
        started_at=timestamp_message(record.started_at),
        version=record.version,
        last=None if record.last is None else progress_message(record.last),
        epochs=record.request.epochs,
        learning_rate=record.request.sgd.learning_rate,
        batch_size=record.request.batch_size,
        seed=record.request.seed,
    )


def timestamp_message(seconds: float) -> Timestamp:
    """Seconds since 1970 as a message."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def progress_messages(
    groups: Iterable[Sequence[Progress]], coalesce: bool
) -> Iterator[pb.TrainResponse]:
    """The messages of epochs, some of which come together: one of those, or one of each."""
    for group in groups:
        messages = list(map(progress_message, group))
        if coalesce and messages:
            last = messages.pop()
            last.earlier.extend(messages)
            messages = [last]
        yield from messages


def progress_message(answer: Progress) -> pb.TrainResponse:
    """An epoch's message."""
    seconds, nanos = divmod(round(answer.elapsed * 1e9), 10**9)
    return pb.TrainResponse(
        epoch=answer.epoch,
        epochs=answer.epochs,
        train_loss=answer.train_loss,
        valid_loss=answer.valid_loss,
        valid_accuracy=answer.valid_accuracy,
        version=answer.version,
        elapsed=Duration(seconds=seconds, nanos=nanos),
    )
