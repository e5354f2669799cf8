"""The handle of a training run, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.asyncio_errors import translate_errors
from mnist37_client._rpc.progress import ProgressBuffer
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Progress


class AsyncTrainingRun(AsyncIterator[Progress]):
    """A training run that yields its progress after each epoch, with `async for`.

    The run stops when no caller follows it: after `cancel`, at the end of an `async with` block,
    when the task that reads it is cancelled, or when the program leaves the loop over
    `client.train(...)`. The model keeps what it learnt.
    """

    def __init__(
        self,
        begin: Callable[[], grpc.aio.UnaryStreamCall[Any, pb.TrainResponse]],
        address: str,
        retry_policy: RetryPolicy,
    ) -> None:
        self._begin = begin
        self._address = address
        self._attempts = retry_policy.attempts()
        self._progress = ProgressBuffer()
        self._cancelled = False
        self._call = begin()

    async def __anext__(self) -> Progress:
        if self._progress.waiting:
            await asyncio.sleep(0)  # a message may hold many epochs: let other tasks run
        while self._cancelled or not self._progress.waiting:
            try:
                with translate_errors(self._address):
                    message = await self._call.read()
            except Mnist37Error as error:
                if self._cancelled:
                    raise StopAsyncIteration from None
                await asyncio.sleep(self._attempts.next_pause(error))
                if self._cancelled:
                    raise StopAsyncIteration from None
                self._call = self._begin()
                continue
            except asyncio.CancelledError:
                self._cancelled = True  # a cancelled reader ends the call in grpc
                raise
            if message is grpc.aio.EOF:
                raise StopAsyncIteration
            assert isinstance(message, pb.TrainResponse)
            self._progress.add(message)
            self._attempts.record_success()
        return self._progress.waiting.popleft()

    async def wait(self) -> Progress:
        """Follow the run to its end and return its last progress.

        Raises:
            Cancelled: the run was cancelled before its first epoch ended.
        """
        async for _ in self:
            pass
        if self._progress.last is None:
            raise Cancelled("the run was cancelled before its first epoch ended")
        return self._progress.last

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
        self.cancel()
