"""Convert messages to requests, and answers to messages."""

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

# The messages of the writes; each of them has a request_id.
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
    """Return the value of an optional field, or the default if the field is unset."""
    value: T = getattr(message, field)
    return value if message.HasField(field) else default


def parse_request_id(message: WriteRequest) -> str | None:
    """Return the id of a write; None if the field is unset.

    Raises:
        InvalidArgument: the id does not have 1 to 128 characters.
    """
    if not message.HasField("request_id"):
        return None
    check_request_id(request_id := message.request_id)
    return request_id


def parse_version(message: pb.GetLossRequest | pb.GetModelRequest) -> int | None:
    """Return the version that a read asks for; None means the newest."""
    return message.version if message.HasField("version") else None


def parse_batch(message: pb.Batch) -> Batch:
    """Return a batch.

    Raises:
        InvalidArgument: the pixels are not whole images, or the labels do not match them.
    """
    return Batch(message.pixels, message.labels)


def parse_step(message: pb.StepRequest) -> Step:
    """Return a Step.

    Raises:
        InvalidArgument: a value is out of its range.
    """
    learning_rate = field_or_default(message, "learning_rate", Sgd.learning_rate)
    if message.HasField("batch"):
        return Step(parse_batch(message.batch), Sgd(learning_rate))
    return step_without_batch(learning_rate)


@lru_cache  # a client that trains step by step sends equal requests
def step_without_batch(learning_rate: float) -> Step:
    """Return a Step on the next mini-batch.

    Raises:
        InvalidArgument: the learning rate is out of its range.
    """
    return Step(None, Sgd(learning_rate))


def parse_train(message: pb.TrainRequest) -> Train:
    """Return a Train.

    Raises:
        InvalidArgument: `epochs` is unset, or a value is out of its range.
    """
    if not message.HasField("epochs"):
        raise InvalidArgument("epochs", "is missing", "must be 1 to 1,000,000")
    return Train(
        message.epochs,
        Sgd(field_or_default(message, "learning_rate", Sgd.learning_rate)),
        field_or_default(message, "batch_size", Train.batch_size),
        field_or_default(message, "seed", Train.seed),
    )


def parse_initialize(message: pb.InitializeRequest) -> Initialize:
    """Return an Initialize.

    Raises:
        InvalidArgument: a value is out of its range.
    """
    return Initialize(
        field_or_default(message, "seed", Initialize.seed),
        field_or_default(message, "std", Initialize.std),
    )


def parse_restore(message: pb.RestoreRequest) -> Restore:
    """Return a Restore.

    Raises:
        InvalidArgument: `version` is unset.
    """
    if not message.HasField("version"):
        raise InvalidArgument("version", "is missing", "must be one that ListVersions names")
    return Restore(message.version)


def parse_import(message: pb.ImportRequest) -> Import:
    """Return an Import.

    Raises:
        InvalidArgument: `bias` is unset, or the parameters are not 785 finite numbers that float32
            sums can hold.
    """
    if not message.HasField("bias"):
        raise InvalidArgument("bias", "is missing", "must be a finite number")
    return Import(message.weights, message.bias)


def parse_examples(message: pb.GetLossRequest) -> Split | Batch:
    """Return the images to compute a loss on: a resident set, or the batch in the message.

    Raises:
        InvalidArgument: neither is set, the set does not exist, or the batch is wrong.
    """
    field = message.WhichOneof("on")
    if field == "batch":
        return parse_batch(message.batch)
    expected = "set split to SPLIT_TRAIN or SPLIT_VALID, or send a batch"
    if field is None:
        raise InvalidArgument("split", "neither split nor batch is set", expected)
    if message.split not in SPLITS:
        raise InvalidArgument("split", f"got {message.split}", expected)
    return SPLITS[message.split]


def version_message(record: VersionRecord) -> pb.ModelVersion:
    """Return the message of a retained version."""
    return pb.ModelVersion(
        version=record.version,
        origin=ORIGINS[record.origin],
        run=record.run,
        committed_at=timestamp_message(record.committed_at),
    )


def run_message(record: RunRecord, under_way: bool) -> pb.Run:
    """Return the message of a run.

    Args:
        record: the run at its last commit.
        under_way: whether the run is still in progress.
    """
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
    """Return the message of a time in seconds since 1970."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def progress_messages(
    groups: Iterable[Sequence[Progress]], coalesce: bool
) -> Iterator[pb.TrainResponse]:
    """Yield the messages of epochs.

    Args:
        groups: the epochs, in groups that are available together.
        coalesce: whether a group becomes one message, or each epoch its own.
    """
    for group in groups:
        messages = list(map(progress_message, group))
        if coalesce and messages:
            last = messages.pop()
            last.earlier.extend(messages)
            messages = [last]
        yield from messages


def progress_message(progress: Progress) -> pb.TrainResponse:
    """Return the message of an epoch."""
    seconds, nanos = divmod(round(progress.elapsed * 1e9), 10**9)
    return pb.TrainResponse(
        epoch=progress.epoch,
        epochs=progress.epochs,
        train_loss=progress.train_loss,
        valid_loss=progress.valid_loss,
        valid_accuracy=progress.valid_accuracy,
        version=progress.version,
        elapsed=Duration(seconds=seconds, nanos=nanos),
    )
