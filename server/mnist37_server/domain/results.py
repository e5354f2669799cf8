"""The results of writes, and the values in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mnist37_server.domain.commands.commands import Request, Step
from mnist37_server.domain.commands.train import Train


class StepResult(NamedTuple):
    """The result of a Step."""

    loss: float  # mean over the batch, before the update
    version: int  # of the model, after the update


class Progress(NamedTuple):
    """The result of one epoch of a Train."""

    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: float  # seconds of training since the run began
    run: int = 0  # the number of the run; 0 in answers that an earlier release stored
    # The epoch with the lowest validation loss: in the last result of a finished run, else 0.
    best_epoch: int = 0
    stopped_early: bool = False  # whether the patience of the run ended it

    @property
    def ends_run(self) -> bool:
        """Return whether the run is finished with this epoch."""
        return self.best_epoch > 0


class WriteResult(NamedTuple):
    """The result of an Initialize, a Restore, an Import or a change of a tag."""

    version: int  # that the write made, or to which the tag points or pointed


Result = StepResult | Progress | WriteResult


def values_of(result: Result) -> tuple[float, ...]:
    """Return a result's values in the order in which they are stored, which never changes."""
    if isinstance(result, StepResult):
        return result.loss, result.version
    if isinstance(result, Progress):
        return (
            result.epoch,
            result.epochs,
            result.train_loss,
            result.valid_loss,
            result.valid_accuracy,
            result.version,
            result.elapsed,
            result.run,
            result.best_epoch,
            int(result.stopped_early),
        )
    return (result.version,)


def progress_from_values(values: Sequence[Any]) -> Progress:
    """Return the Progress that has these stored values.

    Args:
        values: those of `values_of`; an earlier release stored the first seven.
    """
    epoch, epochs, train_loss, valid_loss, valid_accuracy, version, elapsed, *later = values
    run, best_epoch, stopped_early = later or (0, 0, 0)
    return Progress(
        epoch=epoch,
        epochs=epochs,
        train_loss=train_loss,
        valid_loss=valid_loss,
        valid_accuracy=valid_accuracy,
        version=version,
        elapsed=elapsed,
        run=run,
        best_epoch=best_epoch,
        stopped_early=bool(stopped_early),
    )


def result_from_values(request: Request, values: Sequence[Any]) -> Result:
    """Return the result of a request from its stored values."""
    if isinstance(request, Step):
        loss, version = values
        return StepResult(loss=loss, version=version)
    if isinstance(request, Train):
        return progress_from_values(values)
    (version,) = values
    return WriteResult(version=version)


def progress_of(results: Sequence[Result]) -> list[Progress]:
    """Return the results of a Train, typed as Progress."""
    progress = [result for result in results if isinstance(result, Progress)]
    assert len(progress) == len(results)
    return progress
