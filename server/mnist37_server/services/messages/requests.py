"""The requests in messages: parse them, and check what protobuf does not check."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import Message
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37.optimizer import Sgd
from mnist37.schedule import Schedule, Shape
from mnist37_server.domain.commands.checks import (
    TAG_NAME_LENGTH_MAX,
    check_length,
    check_request_id,
)
from mnist37_server.domain.commands.commands import (
    DeleteTag,
    Import,
    Initialize,
    Restore,
    Step,
    TagVersion,
)
from mnist37_server.domain.commands.train import EarlyStopping, Train
from mnist37_server.domain.examples import Batch, Split
from mnist37_server.domain.position import Floor
from mnist37_server.errors import InvalidArgument

T = TypeVar("T", int, float, str)

# The messages of the writes; each of them has a request_id.
WriteRequest = (
    pb.StepRequest
    | pb.TrainRequest
    | pb.InitializeRequest
    | pb.RestoreRequest
    | pb.ImportRequest
    | pb.TagVersionRequest
    | pb.DeleteTagRequest
)
# The messages that name a version by its number or by a tag.
VersionRequest = (
    pb.PredictRequest
    | pb.GetLossRequest
    | pb.GetModelRequest
    | pb.RestoreRequest
    | pb.TagVersionRequest
)

# The messages of reads, which have a floor.
ReadRequest = pb.PredictRequest | pb.GetLossRequest | pb.GetModelRequest

SPLITS = {pb.SPLIT_TRAIN: Split.TRAIN, pb.SPLIT_VALID: Split.VALID}

SHAPES = {
    pb.SCHEDULE_CONSTANT: Shape.CONSTANT,
    pb.SCHEDULE_LINEAR: Shape.LINEAR,
    pb.SCHEDULE_COSINE: Shape.COSINE,
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


def parse_version(message: VersionRequest) -> int | str | None:
    """Return the version that a message names: its number, or a tag; None if neither is set.

    Raises:
        InvalidArgument: both are set, or the tag is too long.
    """
    if not message.HasField("tag"):
        return message.version if message.HasField("version") else None
    if message.HasField("version"):
        raise InvalidArgument(
            "tag", f"is set beside version {message.version}", "set only one of them"
        )
    check_length("tag", message.tag, TAG_NAME_LENGTH_MAX)
    return message.tag


def parse_floor(message: ReadRequest) -> Floor | None:
    """Return the floor of a read; None if it has none."""
    start = message.start if message.HasField("start") else None
    version = message.min_version if message.HasField("min_version") else None
    return None if start is None and version is None else Floor(start, version)


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
        message.name if message.HasField("name") else None,
        parse_schedule(message),
        parse_early_stopping(message),
    )


def parse_schedule(message: pb.TrainRequest) -> Schedule:
    """Return the schedule of a run's learning rate.

    Raises:
        InvalidArgument: there is no such schedule.
    """
    kind = message.schedule if message.HasField("schedule") else pb.SCHEDULE_CONSTANT
    if kind not in SHAPES:
        names = ", ".join(pb.Schedule.Name(known) for known in SHAPES)
        raise InvalidArgument("schedule", f"got {kind}", f"must be one of {names}")
    final_rate = message.final_learning_rate if message.HasField("final_learning_rate") else None
    return Schedule(SHAPES[kind], final_rate, field_or_default(message, "warmup_epochs", 0))


def parse_early_stopping(message: pb.TrainRequest) -> EarlyStopping | None:
    """Return the rule that ends a run early; None if there is none.

    Raises:
        InvalidArgument: a value is out of its range, or there is no patience for `min_delta`.
    """
    if message.HasField("patience"):
        return EarlyStopping(message.patience, field_or_default(message, "min_delta", 0.0))
    if message.HasField("min_delta"):
        raise InvalidArgument(
            "patience", "is missing beside min_delta", "must be a number of epochs, at least 1"
        )
    return None


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
    version = parse_version(message)
    if version is None:
        raise InvalidArgument("version", "is missing", "must be one that ListVersions names")
    return Restore(version)


def parse_tag_version(message: pb.TagVersionRequest) -> TagVersion:
    """Return a TagVersion.

    Raises:
        InvalidArgument: the name is not one that a caller may set, or both `version` and `tag` are.
    """
    return TagVersion(message.name, parse_version(message))


def parse_delete_tag(message: pb.DeleteTagRequest) -> DeleteTag:
    """Return a DeleteTag.

    Raises:
        InvalidArgument: the name is not one that a caller may set.
    """
    return DeleteTag(message.name)


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
