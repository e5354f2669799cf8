"""What happens to the model, told as it happens: a line in the log, and numbers for who watches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mnist37_server.domain.commands import Step
from mnist37_server.domain.results import Progress, Result, StepResult
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.subscription import PendingWrite
from mnist37_server.errors import Refusal
from mnist37_server.observability.histogram import Histogram

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

log = logging.getLogger(__name__)


class EngineStats:
    """One for a live model; whoever changes something tells it before anybody is answered.

    So a caller who has an answer finds it in the numbers. Each of them is written by one thread at
    a time (under the queue's lock, or by the one that commits), and read by any.
    """

    def __init__(self) -> None:
        self.train_loss: float | None = None  # the last that was told; None before the first
        self.valid_loss: float | None = None
        self.valid_accuracy: float | None = None
        self.runs_finished = 0
        self.runs_interrupted = 0
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self.commits_failed = 0
        self._version: int | None = None  # the newest that is committed
        self._run: PendingWrite | None = None  # the run under way

    def record_commit(self, newest: Snapshot, seconds: float) -> None:
        """A commit succeeded, and took that long."""
        self._version = newest.version
        self.commit_seconds.add(seconds)

    def record_commit_failure(self, error: Exception) -> None:
        """A commit failed, and all that waited for it will."""
        self.commits_failed += 1
        unforeseen = None if isinstance(error, Refusal) else error
        log.error("a commit failed: %s", error, exc_info=unforeseen)

    def record_run_start(self, write: PendingWrite) -> None:
        """The first step of a run is next, or the first since it was interrupted."""
        self._run = write
        log.info("run started", extra=log_fields(write))

    def record_results(self, results: Sequence[Result]) -> None:
        """Answers of a write that are committed: how good the model is after the last."""
        result = results[-1]
        if isinstance(result, StepResult):
            self.train_loss = result.loss
        elif isinstance(result, Progress):
            self.train_loss = result.train_loss
            self.valid_loss = result.valid_loss
            self.valid_accuracy = result.valid_accuracy

    def record_end(
        self, write: PendingWrite, results: Sequence[Result], error: BaseException | None = None
    ) -> None:
        """A write is over: committed, if there are answers."""
        if results:
            self.record_results(results)
        if write is self._run:
            self._run = None
            if results:
                self.runs_finished += 1
                log.info("run finished", extra=log_fields(write, self._version))
            else:
                self.runs_interrupted += 1
                extra = {**log_fields(write, self._version), "reason": interruption_reason(error)}
                log.info("run interrupted", extra=extra)
        elif results:
            level = logging.DEBUG if isinstance(write.request, Step) else logging.INFO
            if log.isEnabledFor(level):
                log.log(level, "committed", extra=log_fields(write, results[-1].version))


def log_fields(write: PendingWrite, version: int | None = None) -> dict[str, object]:
    """What a line about a write names it by; never what it came with."""
    return {
        "method": type(write.request).__name__,
        "request_id": write.request_id,
        "run": write.run,
        "version": version,
    }


def interruption_reason(error: BaseException | None) -> str:
    """Why a run was interrupted, without what an unforeseen error may say."""
    return str(error) if isinstance(error, Refusal) else type(error).__name__
