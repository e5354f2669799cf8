"""How writes are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mnist37_server.domain.commands import Request, Step, Train


class StepResult(NamedTuple):
    """A Step's answer."""

    loss: float  # the mean on the batch, before the update
    version: int  # that the update made


class Progress(NamedTuple):
    """A Train's answer after each epoch."""

    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: float  # seconds of training since the run began


class Written(NamedTuple):
    """The answer to an Initialize, a Restore or an Import."""

    version: int


Answer = StepResult | Progress | Written


def to_values(answer: Answer) -> tuple[float, ...]:
    """Return an answer's values in the order in which they are stored, which never changes."""
    if isinstance(answer, StepResult):
        return answer.loss, answer.version
    if isinstance(answer, Progress):
        return (
            answer.epoch,
            answer.epochs,
            answer.train_loss,
            answer.valid_loss,
            answer.valid_accuracy,
            answer.version,
            answer.elapsed,
        )
    return (answer.version,)


def to_progress(values: Sequence[Any]) -> Progress:
    """Return the progress whose `to_values` these are."""
    epoch, epochs, train_loss, valid_loss, valid_accuracy, version, elapsed = values
    return Progress(
        epoch=epoch,
        epochs=epochs,
        train_loss=train_loss,
        valid_loss=valid_loss,
        valid_accuracy=valid_accuracy,
        version=version,
        elapsed=elapsed,
    )


def answer_to(request: Request, values: Sequence[Any]) -> Answer:
    """Return the answer to a request whose `to_values` these are."""
    if isinstance(request, Step):
        loss, version = values
        return StepResult(loss=loss, version=version)
    if isinstance(request, Train):
        return to_progress(values)
    (version,) = values
    return Written(version=version)


def epochs(answers: Sequence[Answer]) -> list[Progress]:
    """The answers to a Train, as what they are."""
    found = [answer for answer in answers if isinstance(answer, Progress)]
    assert len(found) == len(answers)
    return found
