"""The handle of a training run, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from mnist37_client._rpc.methods.calls import run_ahead
from mnist37_client._rpc.methods.progress import ProgressBuffer, RunHandle
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Progress, Run

Stream = grpc.aio.UnaryStreamCall[Any, bytes]


class AsyncTrainingRun(RunHandle, AsyncIterator[Progress]):
    """A training run that yields its progress after each epoch, with `async for`.

    The run stops when no caller follows it: after `cancel`, at the end of an `async with` block,
    after any exception while a task waits for it, its cancellation too, or when the program leaves
    the loop over `client.train(...)`. The model keeps what it learnt.

    An exception in the body of the loop is another matter: as long as its traceback is kept, as in
    a notebook, the run goes on. An `async with` block stops it.
    """

    def __init__(
        self,
        begin: Callable[[], Stream],
        progress: ProgressBuffer,
        translate_errors: Callable[[], AbstractContextManager[None]],
        retry_policy: RetryPolicy,
        runs: Callable[[], Awaitable[list[Run]]],
        watch_run: Callable[[int], AsyncIterator[Run | Progress]],
    ) -> None:
        self._call = begin()
        self._loop = asyncio.get_running_loop()
        self._begin = begin
        super().__init__(progress)
        self._translate_errors = translate_errors
        self._attempts = retry_policy.attempts()
        self._runs = runs
        self._watch_run = watch_run
        self._cancelled = False

    async def __anext__(self) -> Progress:
        if asyncio.get_running_loop() is not self._loop:
            raise Mnist37Error("the run began in another event loop; follow it there")
        try:
            if self._progress.waiting:
                await asyncio.sleep(0)  # a message may hold many epochs: let other tasks run
            while self._cancelled or not self._progress.waiting:
                await self._read()
            return self._progress.waiting.popleft()
        except asyncio.CancelledError:
            self.cancel()
            raise
        except BaseException:  # KeyboardInterrupt too: its traceback may keep this object
            self._call.cancel()
            raise

    async def _read(self) -> None:
        """Read the next message, or begin the next attempt.

        Raises:
            StopAsyncIteration: the run has ended or was cancelled.
        """
        try:
            with self._translate_errors():
                message = await self._call.read()
        except Mnist37Error as error:
            if self._cancelled:
                raise StopAsyncIteration from None
            await asyncio.sleep(self._attempts.next_pause(error))
            if self._cancelled:
                raise StopAsyncIteration from None
            self._progress.begin_call()
            self._call = self._begin()  # the request has an id, so the same run continues
            return
        if not isinstance(message, bytes):  # it is grpc.aio.EOF
            if not self._cancelled:
                self._progress.check_end()
            raise StopAsyncIteration
        progress = self._progress.parse(message)
        if self._progress.has_missed(progress):
            self._progress.add(await self._fetch_missed(progress[0].run, progress[0].epoch))
        self._progress.add(progress)
        self._attempts.record_success()

    async def _fetch_missed(self, run: int, end: int) -> list[Progress]:
        """Return the epochs before `end` that the run's curve has, after a cut connection."""
        with suppress(Mnist37Error):
            items = [item async for item in self._watch_run(run)]
            curve = [item for item in items if isinstance(item, Progress)]
            return [progress for progress in curve if progress.epoch < end]
        return []

    async def wait(self) -> Progress:
        """Follow the run to its end and return its last progress.

        Raises:
            Cancelled: the run was cancelled before its first epoch ended.
        """
        try:
            async for _ in self:
                pass
        except BaseException:
            self._call.cancel()
            raise
        if self._progress.last is None:
            raise Cancelled("the run was cancelled before its first epoch ended")
        return self._progress.last

    async def waits_for(self) -> Run | None:
        """Return the run that this one waits for; None if it waits for no run."""
        if self._progress.last is not None:
            return None
        return run_ahead(await self._runs(), self._progress.request_id)

    def cancel(self) -> None:
        """Stop the run within some milliseconds; after its end, do nothing."""
        self._cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # The garbage collector calls this in any thread, and after the loop's end.
        if hasattr(self, "_loop"):  # not if `begin` failed
            with suppress(RuntimeError):  # the loop is closed, and its calls have ended
                self._loop.call_soon_threadsafe(self._call.cancel)
