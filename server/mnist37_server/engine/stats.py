"""The engine's stats for the metrics, and the log lines of its events."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mnist37_server.domain.commands.commands import Step
from mnist37_server.domain.results import Progress, Result, StepResult
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.writes.subscription import PendingWrite
from mnist37_server.errors import Refusal
from mnist37_server.observability.histogram import Histogram

COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

log = logging.getLogger(__name__)


class EngineStats:
    """The counts and the last losses of one live model.

    The queue and the committer record each event before they answer the callers, so the stats
    include every write that was answered. Each field is written by one thread at a time, and any
    thread may read it.
    """

    def __init__(self) -> None:
        # guarded by WriteQueue._lock, for writes: these and _run
        self.train_loss: float | None = None  # of the last result; None before the first
        self.valid_loss: float | None = None
        self.valid_accuracy: float | None = None
        self.runs_finished = 0
        self.runs_interrupted = 0
        self._run: PendingWrite | None = None  # the run under way
        # Written by the thread that commits.
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self.commits_failed = 0
        self._version: int | None = None  # the newest committed version

    def record_commit(self, newest: Snapshot, seconds: float) -> None:
        """Record a commit that succeeded, its newest version and its duration."""
        self._version = newest.version
        self.commit_seconds.add(seconds)

    def record_commit_failure(self, error: Exception) -> None:
        """Record a commit that failed; log a stack trace if the error is not a refusal."""
        self.commits_failed += 1
        traced_error = None if isinstance(error, Refusal) else error
        log.error("a commit failed: %s", error, exc_info=traced_error)

    def record_run_start(self, write: PendingWrite) -> None:
        """Record that a run starts, or goes on after an interruption."""
        self._run = write
        log.info("run started", extra=log_fields(write))

    def record_results(self, results: Sequence[Result]) -> None:
        """Record the losses and the accuracy of the last of a write's committed results."""
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
        """Record the end of a write: it is committed if it has results."""
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
    """Return the fields that identify a write in a log line, without the values of its request."""
    return {
        "method": type(write.request).__name__,
        "request_id": write.request_id,
        "run": write.run,
        "version": version,
    }


def interruption_reason(error: BaseException | None) -> str:
    """Return why a run was interrupted: a refusal's text, or only the type of another error."""
    return str(error) if isinstance(error, Refusal) else type(error).__name__
