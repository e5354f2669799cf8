"""The results in the messages of a server, which are checked: another server may say anything.

Messages come as bytes, because grpcio hides the error of a decoder: it logs the stack trace and
goes on with None. A caller that also needs the message's position decodes the message itself.
"""

from __future__ import annotations

import hashlib
import reprlib
from itertools import pairwise

import numpy as np
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.messages.checks import (
    check_falls,
    check_version,
    decode,
    enum_name,
    invalid,
    optional,
    positive,
    printable,
    seconds,
    time,
    unit,
)
from mnist37_client.images import PIXELS
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

ONE_BITS = 0x3F800000  # of the float32 1.0


def parse_prediction(
    response: pb.PredictResponse, count: int, version: int | str | None = None
) -> Prediction:
    """Return the prediction for `count` images, by this version if it is not None or a tag."""
    probabilities = np.array(response.probabilities, np.float32)
    if len(probabilities) != count:
        raise invalid("probabilities", f"{len(probabilities):,}", f"one for each of {count:,}")
    # As unsigned integers, the bits of 0 to 1 are those up to ONE_BITS: one pass instead of two.
    if np.maximum.reduce(probabilities.view(np.uint32)) > ONE_BITS:
        wrong = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
        raise invalid("probabilities", wrong[0] if len(wrong) else -0.0, "in 0..1")
    if version is not None:  # mostly it is: a call less for each prediction
        check_version(response.version, version)
    return Prediction(probabilities, response.version)


def parse_loss(
    response: pb.GetLossResponse, count: int | None = None, version: int | str | None = None
) -> Loss:
    """Return the loss on `count` images, by this version; None for either means any."""
    check_version(response.version, version)
    if response.count != (count or response.count or 1):
        raise invalid("count", response.count, f"{count or 1:,}" + ("" if count else " or more"))
    cells = (
        response.threes_right,
        response.threes_called_sevens,
        response.sevens_right,
        response.sevens_called_threes,
    )
    if sum(cells) != response.count:
        raise invalid("count", response.count, f"{sum(cells):,}, the sum of the confusion matrix")
    return Loss(
        unit("loss", response.loss),
        unit("accuracy", response.accuracy),
        response.count,
        response.version,
        *cells,
    )


def parse_step(response: pb.StepResponse) -> StepResult:
    """Return the result of a Step."""
    return StepResult(unit("loss", response.loss), positive("version", response.version))


def parse_new_version(
    response: pb.InitializeResponse | pb.RestoreResponse | pb.ImportResponse,
) -> int:
    """Return the version that a write made."""
    return positive("version", response.version)


def parse_tagged_version(
    response: pb.TagVersionResponse | pb.DeleteTagResponse, version: int | str | None
) -> int:
    """Return the version of a tag, which is this one unless it is None or a tag itself."""
    check_version(response.version, version)
    return response.version


def parse_tags(content: bytes) -> list[Tag]:
    """Return the tags in a ListTagsResponse."""
    return [
        Tag(
            printable("name", message.name),
            message.version,
            message.run if message.HasField("run") else None,
            time("tagged_at", message.tagged_at),
        )
        for message in decode(pb.ListTagsResponse, content).tags
    ]


def parse_model(response: pb.GetModelResponse, version: int | str | None) -> Model:
    """Return the parameters of this version; None, or a tag, means any."""
    check_version(response.version, version)
    if len(response.weights) != 4 * PIXELS:
        size = len(response.weights)
        raise invalid("weights", f"{size:,} bytes", f"{4 * PIXELS:,}, {PIXELS} float32")
    weights = np.frombuffer(response.weights, "<f4").astype(np.float32)
    bias = np.float32(response.bias)
    for name, values in (("weights", weights), ("bias", bias)):
        if not np.isfinite(values).all():
            raise invalid(name, "NaN or infinity", "finite")
    digest = hashlib.sha256(response.weights + bias.astype("<f4").tobytes()).hexdigest()
    if response.digest != digest:
        raise invalid("digest", reprlib.repr(response.digest), f"{digest}, as the parameters have")
    device = printable("device", response.device)
    return Model(weights, bias, response.version, digest, device)


def parse_followers(content: bytes) -> list[Follower]:
    """Return the followers in a ListFollowersResponse."""
    return [
        Follower(
            printable("id", message.id),
            printable("address", message.address),
            message.position.start,
            message.position.version,
            seconds("age", message.age),
            time("connected_at", message.connected_at),
        )
        for message in decode(pb.ListFollowersResponse, content).followers
    ]


def parse_versions(content: bytes, limit: int | None) -> list[Version]:
    """Return the retained versions, at most `limit`."""
    messages = decode(pb.ListVersionsResponse, content).versions
    if limit is not None and len(messages) > limit:
        raise invalid("versions", f"{len(messages):,}", f"at most {limit:,}")
    check_falls("versions", (message.version for message in messages))
    return [
        Version(
            message.version,
            enum_name(pb.Origin, message.origin),
            message.run if message.HasField("run") else None,
            time("committed_at", message.committed_at),
        )
        for message in messages
    ]


def parse_runs(content: bytes, size: int, page_token: str = "") -> tuple[list[Run], str]:
    """Return the runs of a page, at most `size`, and the token of the next page; "" if it is last.

    Args:
        content: the bytes of a ListRunsResponse.
        size: the size of the page, as the request says.
        page_token: the token of this page.
    """
    response = decode(pb.ListRunsResponse, content)
    if len(response.runs) > size:
        raise invalid("runs", f"{len(response.runs):,}", f"at most {size:,}")
    if response.next_page_token and (not response.runs or response.next_page_token == page_token):
        raise invalid("next_page_token", "one without progress", "empty on the last page")
    check_falls("runs", (message.run for message in response.runs if message.run))
    return [parse_run(message) for message in response.runs], response.next_page_token


def parse_run(message: pb.Run) -> Run:
    """Return the run in a message."""
    last = parse_progress(message.last, message.epochs) if message.HasField("last") else None
    for field in ("learning_rate", "final_learning_rate", "min_delta"):
        if not np.isfinite(value := getattr(message, field)):
            raise invalid(field, value, "finite")
    is_queued = message.state == pb.RUN_STATE_QUEUED
    return Run(
        run=None if is_queued else positive("run", message.run),
        state=enum_name(pb.RunState, message.state),
        request_id=message.request_id if message.HasField("request_id") else None,
        epochs=message.epochs,
        learning_rate=message.learning_rate,
        batch_size=message.batch_size,
        seed=message.seed,
        started_at=None if is_queued else time("started_at", message.started_at),
        version=None if is_queued else message.version,
        last=last,
        name=message.name if message.HasField("name") else None,
        schedule=enum_name(pb.Schedule, message.schedule),
        final_learning_rate=optional(message, "final_learning_rate"),
        warmup_epochs=message.warmup_epochs,
        patience=optional(message, "patience"),
        min_delta=optional(message, "min_delta"),
        best_epoch=optional(message, "best_epoch"),
        best_version=optional(message, "best_version"),
        queue_position=optional(message, "queue_position"),
    )


def parse_epochs(message: pb.TrainResponse, epochs: int, after: int = 0) -> list[Progress]:
    """Return all epochs in a message, oldest first.

    Args:
        message: has one epoch or, in `earlier`, more of them.
        epochs: how many the run has.
        after: the last epoch of the message before; 0 if this is the first.
    """
    parsed = [parse_progress(each, epochs) for each in (*message.earlier, message)]
    for before, epoch in pairwise([after, *(progress.epoch for progress in parsed)]):
        if epoch <= before:
            raise invalid("epoch", f"{epoch} after {before}", "the next one or a later one")
    return parsed


def parse_progress(message: pb.TrainResponse, epochs: int) -> Progress:
    """Return one epoch of a run that has so many."""
    if message.epochs != epochs:
        raise invalid("epochs", message.epochs, f"{epochs}, as the run has")
    if not 1 <= message.epoch <= epochs:
        raise invalid("epoch", message.epoch, f"in 1..{epochs}")
    return Progress(
        message.epoch,
        message.epochs,
        unit("train_loss", message.train_loss),
        unit("valid_loss", message.valid_loss),
        unit("valid_accuracy", message.valid_accuracy),
        message.version,
        seconds("elapsed", message.elapsed),
        message.run,
        optional(message, "best_epoch"),
        message.stopped_early,
    )
