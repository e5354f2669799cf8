"""The handle of a training run, for threads and scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import grpc

from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client._rpc.methods.calls import run_ahead
from mnist37_client._rpc.methods.progress import ProgressBuffer, RunHandle
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Progress, Run


class Stream(Protocol):
    """A stream of answers as grpc returns it: their bytes, one after the other."""

    def __next__(self) -> bytes: ...
    def cancel(self) -> bool: ...  # noqa: D102


class TrainingRun(RunHandle, Iterator[Progress]):
    """A training run that yields its progress after each epoch.

    The run stops when no caller follows it: after `cancel`, at the end of a `with` block, after any
    exception while the program waits for it (Ctrl-C), or when the program leaves the loop over
    `client.train(...)`. The model keeps what it learnt.

    An exception in the body of the loop is another matter: as long as its traceback is kept, as at
    a prompt, the run goes on. A `with` block stops it.
    """

    def __init__(
        self,
        begin: Callable[[], Stream],
        progress: ProgressBuffer,
        address: str,
        retry_policy: RetryPolicy,
        runs: Callable[[], list[Run]],
        watch_run: Callable[[int], Iterator[Run | Progress]],
    ) -> None:
        self._call = begin()
        self._begin = begin
        super().__init__(progress)
        self._address = address
        self._attempts = retry_policy.attempts()
        self._runs = runs
        self._watch_run = watch_run
        self._cancelled = False

    def __next__(self) -> Progress:
        try:
            while self._cancelled or not self._progress.waiting:
                self._read()
            return self._progress.waiting.popleft()
        except BaseException:  # KeyboardInterrupt too: its traceback may keep this object
            self._call.cancel()
            raise

    def _read(self) -> None:
        """Read the next message, or begin the next attempt.

        Raises:
            StopIteration: the run has ended or was cancelled.
        """
        try:
            progress = self._progress.parse(next(self._call))
        except StopIteration:
            if not self._cancelled:
                self._progress.check_end()
            raise
        except grpc.RpcError as error:
            if self._cancelled:
                raise StopIteration from None
            time.sleep(self._attempts.next_pause(from_rpc(error, self._address)))
            if self._cancelled:
                raise StopIteration from None
            self._progress.begin_call()
            self._call = self._begin()  # the request has an id, so the same run continues
            if self._cancelled:
                self.cancel()
        else:
            if self._progress.has_missed(progress):
                self._progress.add(self._fetch_missed(progress[0].run, progress[0].epoch))
            self._progress.add(progress)
            self._attempts.record_success()

    def _fetch_missed(self, run: int, end: int) -> list[Progress]:
        """Return the epochs before `end` that the run's curve has, after a cut connection."""
        with suppress(Mnist37Error):
            curve = [each for each in self._watch_run(run) if isinstance(each, Progress)]
            return [progress for progress in curve if progress.epoch < end]
        return []

    def wait(self) -> Progress:
        """Follow the run to its end and return its last progress.

        Raises:
            Cancelled: the run was cancelled before its first epoch ended.
        """
        try:
            for _ in self:
                pass
        except BaseException:
            self._call.cancel()
            raise
        if self._progress.last is None:
            raise Cancelled("the run was cancelled before its first epoch ended")
        return self._progress.last

    def waits_for(self) -> Run | None:
        """Return the run that this one waits for; None if it waits for no run."""
        return None if self._progress.last else run_ahead(self._runs(), self._progress.request_id)

    def cancel(self) -> None:
        """Stop the run within some milliseconds; after its end, do nothing."""
        self._cancelled = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_call"):  # not if `begin` failed
            self.cancel()
