"""The way in which Client makes calls: its channel, its retries and its end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import grpc

from mnist37_client._rpc.calls import CHANNEL_OPTIONS, Call, Exchange, Result
from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client._rpc.seconds import check_timeout
from mnist37_client._rpc.status import from_rpc
from mnist37_client._rpc.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error


class BlockingCalls:
    """Calls over one channel, which threads may share.

    Args:
        settings: of the connection.
        timeout: seconds that a call may take; None means no limit.
        retry_for: seconds for which a call is retried when the server is away.
    """

    def __init__(
        self, settings: ConnectionSettings, timeout: float | None, retry_for: float
    ) -> None:
        self.address = settings.address
        self.timeout = check_timeout(timeout)
        self._retry_policy = RetryPolicy(retry_for)
        self._closed = False
        self._channel = settings.channel(
            grpc.insecure_channel, grpc.secure_channel, CHANNEL_OPTIONS
        )
        self._stub = settings.stub(make_stub(self._channel))

    def close(self) -> None:
        """Close the connection and end every call in flight."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _carry_out(self, exchange: Exchange[Result]) -> Result:
        try:
            call = next(exchange)
            while True:
                try:
                    content = self._call(call)
                except Mnist37Error as error:
                    call = exchange.throw(error)
                else:
                    call = exchange.send(content)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Cancelled(f"{self.address}: the client is closed")

    def _call(self, call: Call) -> bytes:
        attempts = self._retry_policy.attempts()
        timeout = call.time_limit(self.timeout)
        while True:
            try:
                content: bytes = self._invoke(call.rpc, call.request, timeout)
            except grpc.RpcError as error:
                failure = from_rpc(error, self.address)
                if call.is_hint:
                    raise failure from error
                time.sleep(attempts.next_pause(failure))
            else:
                attempts.record_success()
                return content

    def _invoke(self, rpc: str, request: object, timeout: float | None = None) -> Any:  # noqa: ANN401 - the stub has no types
        """Return what grpc does: the answer's bytes, or the stream of the answers."""
        self._raise_if_closed()
        try:
            return getattr(self._stub, rpc)(request, timeout=timeout)
        except ValueError:  # another thread has closed the channel since
            self._raise_if_closed()
            raise
