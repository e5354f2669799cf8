"""The best epoch of a run, and the epoch at which its patience is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mnist37_server.domain.commands.train import EarlyStopping


class BestEpoch(NamedTuple):
    """The epoch with a run's lowest validation loss, the first of several."""

    epoch: int
    valid_loss: float
    version: int  # of the model after it


class Baseline(NamedTuple):
    """The epoch from which the patience counts, and the loss that a later one must get below."""

    epoch: int
    valid_loss: float


def apply_patience(
    stopping: EarlyStopping, baseline: Baseline | None, first_epoch: int, losses: Sequence[float]
) -> tuple[Baseline | None, int | None]:
    """Return the baseline after these epochs, and the index of the epoch that ends the run.

    Args:
        stopping: the rule.
        baseline: the baseline before these epochs; None before the first epoch of the run.
        first_epoch: the number of the first of these epochs.
        losses: the validation loss after each of these epochs.

    Returns:
        The index is None if the run goes on after all of them.
    """
    for index, loss in enumerate(losses):
        epoch = first_epoch + index
        if baseline is None or loss < baseline.valid_loss - stopping.min_delta:
            baseline = Baseline(epoch, loss)
        elif epoch - baseline.epoch >= stopping.patience:
            return baseline, index
    return baseline, None
