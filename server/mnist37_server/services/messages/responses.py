"""The messages of answers, from records and results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.records import QueuedRun, RunRecord, TagRecord, VersionRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.followers import FollowerRecord
from mnist37_server.services.messages.requests import SHAPES

ORIGINS = {
    Origin.INITIALIZE: pb.ORIGIN_INITIALIZE,
    Origin.STEP: pb.ORIGIN_STEP,
    Origin.TRAIN: pb.ORIGIN_TRAIN,
    Origin.RESTORE: pb.ORIGIN_RESTORE,
    Origin.IMPORT: pb.ORIGIN_IMPORT,
}
SCHEDULES = {shape: value for value, shape in SHAPES.items()}


def model_message(snapshot: Snapshot, start: int, device: str) -> pb.GetModelResponse:
    """Return the message of a version with its parameters.

    Args:
        snapshot: the version.
        start: the server's start.
        device: the device of the model, as torch prints it.
    """
    return pb.GetModelResponse(
        weights=snapshot.content[:-4],
        bias=snapshot.parameters[-1],
        version=snapshot.version,
        digest=snapshot.digest,
        device=device,
        start=start,
    )


def version_message(record: VersionRecord) -> pb.ModelVersion:
    """Return the message of a retained version."""
    return pb.ModelVersion(
        version=record.version,
        origin=ORIGINS[record.origin],
        run=record.run,
        committed_at=timestamp_message(record.committed_at),
    )


def tag_message(record: TagRecord) -> pb.Tag:
    """Return the message of a tag."""
    return pb.Tag(
        name=record.name,
        version=record.version,
        run=record.run,
        tagged_at=timestamp_message(record.tagged_at),
    )


def run_state(record: RunRecord, under_way: bool) -> pb.RunState:
    """Return the state of a run that has begun.

    Args:
        record: the run at its last commit.
        under_way: whether the run is still in progress.
    """
    if under_way:
        return pb.RUN_STATE_RUNNING
    return pb.RUN_STATE_FINISHED if record.finished else pb.RUN_STATE_INTERRUPTED


def run_message(record: RunRecord, under_way: bool) -> pb.Run:
    """Return the message of a run that has begun.

    Args:
        record: the run at its last commit.
        under_way: whether the run is still in progress.
    """
    message = settings_message(record.request, record.request_id)
    message.run = record.number
    message.state = run_state(record, under_way)
    message.started_at.CopyFrom(timestamp_message(record.started_at))
    message.version = record.version
    if record.last is not None:
        message.last.CopyFrom(progress_message(record.last))
    if record.best is not None:
        message.best_epoch, message.best_version = record.best.epoch, record.best.version
    return message


def queued_run_message(run: QueuedRun) -> pb.Run:
    """Return the message of a run that waits for its turn."""
    message = settings_message(run.request, run.request_id)
    message.state, message.queue_position = pb.RUN_STATE_QUEUED, run.position
    return message


def settings_message(request: Train, request_id: str | None) -> pb.Run:
    """Return the message of a run with nothing but its settings."""
    stopping = request.early_stopping
    return pb.Run(
        request_id=request_id,
        name=request.name,
        epochs=request.epochs,
        learning_rate=request.sgd.learning_rate,
        batch_size=request.batch_size,
        seed=request.seed,
        schedule=SCHEDULES[request.schedule.shape],
        final_learning_rate=request.schedule.final_rate,
        warmup_epochs=request.schedule.warmup_epochs,
        patience=None if stopping is None else stopping.patience,
        min_delta=None if stopping is None else stopping.min_delta,
    )


def timestamp_message(seconds: float) -> Timestamp:
    """Return the message of a time in seconds since 1970."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def progress_messages(
    groups: Iterable[Sequence[Progress]], coalesce: bool, start: int = 0
) -> Iterator[pb.TrainResponse]:
    """Yield the messages of epochs.

    Args:
        groups: the epochs, in groups that are available together.
        coalesce: whether a group becomes one message, or each epoch its own.
        start: the server's start, for the messages of a Train.
    """
    for group in groups:
        messages = list(map(progress_message, group))
        if coalesce and messages:
            last = messages.pop()
            last.earlier.extend(messages)
            messages = [last]
        for message in messages:
            message.start = start
            yield message


def follower_message(record: FollowerRecord) -> pb.Follower:
    """Return the message of a follower."""
    sent = record.sent
    return pb.Follower(
        id=record.name,
        address=record.address,
        position=None if sent is None else pb.Position(start=sent.start, version=sent.version),
        age=duration_message(record.age),
        connected_at=timestamp_message(record.connected_at),
    )


def duration_message(seconds: float) -> Duration:
    """Return the message of a duration."""
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=nanos)


def progress_message(progress: Progress) -> pb.TrainResponse:
    """Return the message of an epoch."""
    return pb.TrainResponse(
        epoch=progress.epoch,
        epochs=progress.epochs,
        train_loss=progress.train_loss,
        valid_loss=progress.valid_loss,
        valid_accuracy=progress.valid_accuracy,
        version=progress.version,
        elapsed=duration_message(progress.elapsed),
        run=progress.run,
        best_epoch=progress.best_epoch or None,
        stopped_early=progress.stopped_early,
    )
