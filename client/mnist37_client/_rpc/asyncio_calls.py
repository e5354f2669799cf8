"""The way in which AsyncClient makes calls: its connections, its retries and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from mnist37_client._rpc.asyncio_errors import translate_errors
from mnist37_client._rpc.batching import RequestBatcher
from mnist37_client._rpc.calls import CHANNEL_OPTIONS, Call, Exchange, Result
from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.event_loops import LoopConnection, LoopConnections
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client._rpc.seconds import check_timeout
from mnist37_client._rpc.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error


class AsyncioCalls:
    """Calls over one channel for each event loop.

    Args:
        settings: of the connection.
        timeout: seconds that a call may take; None means no limit.
        retry_for: seconds for which a call is retried when the server is away.
        merge: merge concurrent calls of Predict into few messages.
    """

    def __init__(
        self, settings: ConnectionSettings, timeout: float | None, retry_for: float, merge: bool
    ) -> None:
        self.address = settings.address
        self.timeout = check_timeout(timeout)
        self._retry_policy = RetryPolicy(retry_for)
        self._merge = merge
        self._closed = False
        self._settings = settings
        self._connections = LoopConnections(self._connect)

    async def close(self) -> None:
        """Close the connection and end every call in flight."""
        self._closed = True
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _connect(self) -> LoopConnection:
        """Return a connection in the running event loop."""
        self._raise_if_closed()
        channel: grpc.aio.Channel = self._settings.channel(
            grpc.aio.insecure_channel, grpc.aio.secure_channel, CHANNEL_OPTIONS
        )
        stub = self._settings.stub(make_stub(channel))
        batcher = RequestBatcher(stub.Predict, self._call, self.address) if self._merge else None
        return LoopConnection(channel, stub, batcher)

    async def _carry_out(self, exchange: Exchange[Result]) -> Result:
        try:
            call = next(exchange)
            while True:
                try:
                    content = await self._make(call)
                except Mnist37Error as error:
                    call = exchange.throw(error)
                else:
                    call = exchange.send(content)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _make(self, call: Call) -> bytes:
        if not call.is_hint:
            return await self._call(partial(self._invoke, call.rpc), call.request)
        with self._translate_errors():
            timeout = call.time_limit(self.timeout)
            content: bytes = await self._invoke(call.rpc, call.request, timeout=timeout)
            return content

    async def _call(self, method: Callable[..., Awaitable[bytes]], request: Message) -> bytes:
        """Return the answer to a request, with retries."""
        attempts = self._retry_policy.attempts()
        while True:
            self._raise_if_closed()
            try:
                with self._translate_errors():
                    content = await method(request, timeout=self.timeout)
            except Mnist37Error as error:
                await asyncio.sleep(attempts.next_pause(error))
            else:
                attempts.record_success()
                return content

    def _invoke(self, rpc: str, request: object, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - the stub has no types
        """Return what grpc does: an awaitable of the answer's bytes, or a stream of them."""
        self._raise_if_closed()
        stub = self._connections.current().stub
        with self._translate_errors():
            return getattr(stub, rpc)(request, timeout=timeout)

    def _translate_errors(self) -> AbstractContextManager[None]:
        """Return a context that raises a Mnist37Error in place of an exception of grpc."""
        return translate_errors(self.address, lambda: self._closed)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")
