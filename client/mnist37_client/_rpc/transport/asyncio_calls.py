"""The way in which AsyncClient makes calls: its connections, its retries and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.failures.asyncio_errors import translate_errors
from mnist37_client._rpc.failures.status import no_owner
from mnist37_client._rpc.methods.calls import CHANNEL_OPTIONS
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges, Result
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.seconds import check_timeout
from mnist37_client._rpc.transport.batching import RequestBatcher
from mnist37_client._rpc.transport.event_loops import LoopConnection, LoopConnections
from mnist37_client._rpc.transport.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error

Method = Callable[..., Awaitable[bytes]]
MethodOf = Callable[[Call], Method]


class AsyncioCalls:
    """Calls over a channel to the owner and one to its followers, in each event loop.

    Args:
        settings: of the connections.
        timeout: seconds that a call may take; None means no limit.
        retry_for: seconds for which a call is retried when the server is away.
        merge: merge concurrent calls of Predict into few messages.
    """

    def __init__(
        self, settings: ConnectionSettings, timeout: float | None, retry_for: float, merge: bool
    ) -> None:
        self.address = settings.address or str(settings.replicas)
        self.timeout = check_timeout(timeout)
        self._retry_policy = RetryPolicy(retry_for)
        self._merge = merge
        self._closed = False
        self._settings = settings
        self._followers = str(settings.replicas)  # for texts
        self._exchanges = Exchanges(settings, self._retry_policy)
        self._connections = LoopConnections(self._connect)

    async def close(self) -> None:
        """Close the connections and end every call in flight."""
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
        """Return the connections in the running event loop."""
        self._raise_if_closed()
        settings = self._settings
        makers = grpc.aio.insecure_channel, grpc.aio.secure_channel, CHANNEL_OPTIONS
        channels: list[grpc.aio.Channel] = []
        owner = followers = None
        if settings.address is not None:
            channels.append(settings.channel(*makers))
            owner = settings.stub(make_stub(channels[-1]))
        if settings.replicas is not None:
            channels.append(settings.replica_channel(*makers))
            followers = settings.stub(make_stub(channels[-1]))
        batcher = None
        if self._merge:
            by_owner = owner and owner.Predict
            by_follower = followers and followers.Predict
            batcher = RequestBatcher(
                by_owner, by_follower, self._exchanges, self._carry_out, self.address
            )
        return LoopConnection(channels, owner, followers, batcher)

    async def _carry_out(
        self, exchange: Exchange[Result], method_of: MethodOf | None = None
    ) -> Result:
        """Make the calls of an exchange and return its result.

        Args:
            exchange: of the client.
            method_of: returns the method that makes an attempt of a call; by default the stub's.
        """
        try:
            call = next(exchange)
            while True:
                try:
                    content = await self._make(call, (method_of or self._method_of)(call))
                except Mnist37Error as error:
                    call = exchange.throw(error)
                else:
                    call = exchange.send(content)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _method_of(self, call: Call) -> Method:
        def invoke(request: object, *, timeout: float | None) -> Awaitable[bytes]:
            answer: Awaitable[bytes] = self._invoke(call.rpc, request, timeout, call.to_followers)
            return answer

        return invoke

    async def _make(self, call: Call, method: Method) -> bytes:
        """Return the answer to a call, with retries."""
        attempts = self._retry_policy.attempts()
        timeout = call.time_limit(self.timeout)
        if call.pause:
            await asyncio.sleep(call.pause)
        while True:
            self._raise_if_closed()
            try:
                with self._translate_errors(call.to_followers):
                    content = await method(call.request, timeout=timeout)
            except Mnist37Error as error:
                if not call.is_retried:
                    raise
                await asyncio.sleep(attempts.next_pause(error))
            else:
                attempts.record_success()
                return content

    def _invoke(
        self,
        rpc: str,
        request: object,
        timeout: float | None = None,
        to_followers: bool = False,
    ) -> Any:  # noqa: ANN401 - the stub has no types
        """Return what grpc does: an awaitable of the answer's bytes, or a stream of them.

        Raises:
            NotOwner: the call needs the owner, and the client does not know it.
        """
        self._raise_if_closed()
        connection = self._connections.current()
        stub = connection.followers if to_followers else connection.owner
        if stub is None:
            raise no_owner(rpc)
        with self._translate_errors(to_followers):
            return getattr(stub, rpc)(request, timeout=timeout)

    def _translate_errors(self, to_followers: bool = False) -> AbstractContextManager[None]:
        """Return a context that raises a Mnist37Error in place of an exception of grpc."""
        name = self._followers if to_followers else self.address
        return translate_errors(name, lambda: self._closed)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")
