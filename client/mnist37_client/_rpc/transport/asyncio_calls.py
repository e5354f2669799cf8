"""The way in which AsyncClient makes calls: its connections, its retries and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub as Stub
from numpy.typing import ArrayLike

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.failures.asyncio_errors import translate_errors
from mnist37_client._rpc.failures.status import StatusLost, no_owner
from mnist37_client._rpc.lifetime import Lifetime, NotCopied
from mnist37_client._rpc.methods.calls import CHANNEL_OPTIONS
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges, Result
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.seconds import check_timeout
from mnist37_client._rpc.methods.sent_batches import SentBatches
from mnist37_client._rpc.replicas import Replicas
from mnist37_client._rpc.transport.batching import RequestBatcher
from mnist37_client._rpc.transport.event_loops import (
    BackgroundTasks,
    LoopConnection,
    LoopConnections,
)
from mnist37_client._rpc.transport.follower_channels import FollowerChannels
from mnist37_client._rpc.transport.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Prediction

Method = Callable[..., Awaitable[bytes]]
MethodOf = Callable[[Call], Method]

MAKERS = grpc.aio.insecure_channel, grpc.aio.secure_channel, CHANNEL_OPTIONS


class AsyncioCalls(NotCopied):
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
        self._lifetime = Lifetime(self.address)
        self._retry_policy = RetryPolicy(retry_for)
        self._merge = merge
        self._closed = False
        self._settings = settings
        self._exchanges = Exchanges(settings, self._retry_policy)
        self._connections = LoopConnections(self._connect)

    async def close(self) -> None:
        """Close the connections and end every call in flight."""
        self._closed = True
        if self._lifetime.is_forked:
            return  # the connections are the parent's
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
        owner_channel = owner = None
        if settings.address is not None:
            owner_channel = settings.channel(*MAKERS)
            owner = settings.stub(make_stub(owner_channel))
        tasks = BackgroundTasks()
        followers: FollowerChannels[grpc.aio.Channel] = FollowerChannels(
            self._exchanges.followers,
            self._connect_followers,
            lambda channel: tasks.start(channel.close()),
        )
        batcher = None
        if self._merge:
            by_follower = partial(invoke_follower, followers, "Predict")
            batcher = RequestBatcher(
                owner and owner.Predict, by_follower, self._exchanges, self._carry_out, self.address
            )
        return LoopConnection(owner_channel, owner, followers, batcher, tasks)

    def _connect_followers(self, replicas: Replicas) -> tuple[grpc.aio.Channel, Stub]:
        channel = self._settings.replica_channel(*MAKERS, replicas)
        return channel, self._settings.stub(make_stub(channel))

    def _refresh_followers(self) -> None:
        """Ask the owner for its followers; no read waits for the answer."""
        refresh = self._carry_out(self._exchanges.refresh_followers())
        self._connections.current().tasks.start(refresh)

    async def _carry_out(
        self, exchange: Exchange[Result], method_of: MethodOf | None = None
    ) -> Result:
        """Make the calls of an exchange and return its result.

        Args:
            exchange: of the client.
            method_of: returns the method that makes an attempt of a read; by default the stub's.
        """
        self._lifetime.check()
        if self._exchanges.followers.begin_refresh():
            self._refresh_followers()
        try:
            call = next(exchange)
            while True:
                make_method = self._method_of if method_of is None or call.is_hint else method_of
                try:
                    content = await self._make(call, make_method(call))
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

    async def _predict_stream(
        self, batches: Iterator[ArrayLike] | AsyncIterator[ArrayLike]
    ) -> AsyncIterator[Prediction]:
        """Yield the predictions of a PredictStream; another stream continues one that fails."""
        if not self._exchanges.followers.is_known:
            await self._carry_out(self._exchanges.find_followers())
        sent = SentBatches(self._exchanges, batches)
        while True:
            stream = self._invoke("PredictStream", sent.requests_async(), None, sent.to_followers)
            failure: Mnist37Error
            try:
                with self._translate_errors(sent.to_followers):
                    async for content in stream:
                        yield sent.parse(content)
                break
            except Mnist37Error as error:
                failure = error
            finally:
                stream.cancel()
            request = sent.oldest_request() if isinstance(failure, StatusLost) else None
            if request is not None:
                # Of a call with one request, grpc.aio does not lose the status.
                call = Call("Predict", request, to_followers=sent.to_followers, is_retried=False)
                try:
                    yield sent.parse(await self._make(call, self._method_of(call)))
                    continue
                except Mnist37Error as error:
                    failure = error
            await asyncio.sleep(sent.next_pause(failure))
        sent.finish()

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
        if not to_followers and connection.owner is None:
            raise no_owner(rpc)
        with self._translate_errors(to_followers):
            if to_followers:
                return invoke_follower(connection.followers, rpc, request, timeout=timeout)
            return getattr(connection.owner, rpc)(request, timeout=timeout)

    def _translate_errors(self, to_followers: bool = False) -> AbstractContextManager[None]:
        """Return a context that raises a Mnist37Error in place of an exception of grpc."""
        name = str(self._exchanges.followers) if to_followers else self.address
        return translate_errors(name, lambda: self._closed)

    def _raise_if_closed(self) -> None:
        self._lifetime.check()
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")


def invoke_follower(
    channels: FollowerChannels[grpc.aio.Channel],
    rpc: str,
    request: object,
    *,
    timeout: float | None = None,
) -> Any:  # noqa: ANN401 - the stub has no types
    """Return a call to a follower; the channel of the call stays open until its end."""
    channel = channels.begin_call()
    try:
        call = getattr(channel.stub, rpc)(request, timeout=timeout)
        call.add_done_callback(lambda _: channels.end_call(channel))
    except BaseException:
        channels.end_call(channel)
        raise
    return call
