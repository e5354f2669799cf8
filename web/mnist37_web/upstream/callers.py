"""The callers of web: each one's calls go to the server with its own token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio
from mnist37_client import AsyncClient
from mnist37_client._rpc.failures.asyncio_errors import translate_errors
from mnist37_client._rpc.failures.status import StatusLost
from mnist37_client._rpc.methods.calls import CHANNEL_OPTIONS

from mnist37_web.errors import HttpError
from mnist37_web.settings import Upstream

CALLERS_MAX = 256  # tokens that are known at a time
SECONDS = 10.0  # that a call may take


class Caller:
    """The server, for the calls with one token.

    Attributes:
        client: merges concurrent predictions, of this token alone.

    Args:
        upstream: the server.
        channel: to the server; all callers share it.
        token: to send; None sends none.
        retry_for: seconds for which `client` retries a call when the server is away.

    Raises:
        InvalidInput: the token would go to another machine in plain text.
    """

    def __init__(
        self,
        upstream: Upstream,
        channel: grpc.aio.Channel,
        token: str | None,
        retry_for: float = 0.0,  # a caller of HTTP waits, and can try again
    ) -> None:
        upstream.connection_settings(token)
        self.client = AsyncClient(
            upstream.address,
            tls_ca=upstream.tls_ca,
            tls_cert=upstream.tls_cert,
            tls_key=upstream.tls_key,
            tls_server_name=upstream.tls_server_name,
            insecure=upstream.insecure,
            token=token,
            timeout=SECONDS,
            retry_for=retry_for,
        )
        self.in_flight = 0  # requests that use this object
        self._address = upstream.address
        self._channel = channel
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    async def call(self, method: str, message: bytes, seconds: float | None = SECONDS) -> bytes:
        """Make a call with one message and return the answer, both serialized.

        Args:
            method: its full name: /PACKAGE.SERVICE/METHOD.
            message: the request.
            seconds: that the call may take; None means no limit.

        Raises:
            Mnist37Error: the call failed.
        """
        call: Any = self._channel.unary_unary(method)  # without serializers it takes bytes
        with translate_errors(self._address, lambda: False):
            answer: bytes = await call(message, timeout=seconds, metadata=self._metadata)
        return answer

    async def stream(
        self, method: str, messages: bytes | AsyncIterator[bytes], seconds: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Make a call and yield the messages of its answer, serialized.

        Args:
            method: its full name: /PACKAGE.SERVICE/METHOD, whose answer is a stream.
            messages: the request, or the requests of a stream.
            seconds: that the call may take; None means no limit.

        Raises:
            Mnist37Error: the call failed.
        """
        last: bytes | None = None  # of the requests, until its answer has come

        async def send(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            nonlocal last
            async for last in messages:
                yield last

        is_stream = not isinstance(messages, bytes)
        kind: Any = self._channel.stream_stream if is_stream else self._channel.unary_stream
        requests = messages if isinstance(messages, bytes) else send(messages)
        with translate_errors(self._address, lambda: False):
            call = kind(method)(requests, timeout=seconds, metadata=self._metadata)
        try:
            with translate_errors(self._address, lambda: False):
                async for answer in call:
                    last = None
                    yield answer
        except StatusLost:
            if last is not None:  # of a call with one request, grpc.aio does not lose the status
                await self.call(method, last)
            raise
        finally:
            call.cancel()


class Callers:
    """The callers by their tokens, in the running event loop.

    Args:
        upstream: the server.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._channel = upstream.connection_settings(None).channel(
            grpc.aio.insecure_channel, grpc.aio.secure_channel, CHANNEL_OPTIONS
        )
        self._own: list[Caller] = []
        self._by_token: OrderedDict[str | None, Caller] = OrderedDict()

    def own(self, token: str | None, retry_for: float = 0.0) -> Caller:
        """Return a caller for web's own token, which no request of others gets."""
        caller = Caller(self._upstream, self._channel, token, retry_for)
        self._own.append(caller)
        return caller

    @contextmanager
    def of(self, token: str | None) -> Iterator[Caller]:
        """Return the caller with a token, for the duration of one request.

        Raises:
            InvalidInput: the token would go to another machine in plain text.
            HttpError: too many tokens are in use.
        """
        caller = self._by_token.get(token)
        if caller is None:
            caller = self._by_token[token] = self._make_room_for(token)
        else:
            self._by_token.move_to_end(token)
        caller.in_flight += 1
        try:
            yield caller
        finally:
            caller.in_flight -= 1

    async def close(self) -> None:
        """Close all connections; calls in flight end."""
        for caller in (*self._own, *self._by_token.values()):
            await caller.client.close()
        await self._channel.close()

    def _make_room_for(self, token: str | None) -> Caller:
        """Return a new caller, in place of the idle one that was used least recently."""
        if len(self._by_token) >= CALLERS_MAX:
            for other, caller in self._by_token.items():
                if not caller.in_flight:
                    del self._by_token[other]  # with it go its connections
                    break
            else:
                raise HttpError(
                    503, f"{CALLERS_MAX} tokens are in use; try again", "TOO_MANY_TOKENS", 1
                )
        return Caller(self._upstream, self._channel, token)
