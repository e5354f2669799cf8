"""The way in which Client makes calls: its channels, its retries and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.failures.status import from_rpc, no_owner
from mnist37_client._rpc.methods.calls import CHANNEL_OPTIONS
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges, Result
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.seconds import check_timeout
from mnist37_client._rpc.methods.sent_batches import SentBatches
from mnist37_client._rpc.transport.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Prediction


class BlockingCalls:
    """Calls over a channel to the owner and one to its followers, which threads may share.

    Args:
        settings: of the connections.
        timeout: seconds that a call may take; None means no limit.
        retry_for: seconds for which a call is retried when the server is away.
    """

    def __init__(
        self, settings: ConnectionSettings, timeout: float | None, retry_for: float
    ) -> None:
        self.address = settings.address or str(settings.replicas)
        self.timeout = check_timeout(timeout)
        self._retry_policy = RetryPolicy(retry_for)
        self._closed = False
        self._followers = str(settings.replicas)  # for texts
        self._exchanges = Exchanges(settings, self._retry_policy)
        makers = grpc.insecure_channel, grpc.secure_channel, CHANNEL_OPTIONS
        self._channels: list[grpc.Channel] = []
        self._owner_stub = self._follower_stub = None
        if settings.address is not None:
            self._channels.append(settings.channel(*makers))
            self._owner_stub = settings.stub(make_stub(self._channels[-1]))
        if settings.replicas is not None:
            self._channels.append(settings.replica_channel(*makers))
            self._follower_stub = settings.stub(make_stub(self._channels[-1]))

    def close(self) -> None:
        """Close the connections and end every call in flight."""
        self._closed = True
        for channel in self._channels:
            channel.close()

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
        if call.pause:
            time.sleep(call.pause)
        while True:
            try:
                content: bytes = self._invoke(call.rpc, call.request, timeout, call.to_followers)
            except grpc.RpcError as error:
                failure = from_rpc(error, self._name(call.to_followers))
                if not call.is_retried:
                    raise failure from error
                time.sleep(attempts.next_pause(failure))
            else:
                attempts.record_success()
                return content

    def _predict_stream(self, sent: SentBatches) -> Iterator[Prediction]:
        """Yield the predictions of a PredictStream; another stream continues one that fails."""
        goes_on = True
        while goes_on:
            goes_on = False
            call = self._invoke("PredictStream", sent.requests(), None, sent.to_followers)
            try:
                yield from map(sent.parse, call)
            except grpc.RpcError as error:
                failure = from_rpc(error, self._name(sent.to_followers))
                goes_on = sent.goes_on(failure)
                if not goes_on:
                    raise failure from error
            finally:
                call.cancel()
        sent.finish()

    def _stream(self, rpc: str, request: object) -> Iterator[bytes]:
        """Yield the answers of the owner to a call with many, and end the call with the reader."""
        call = self._invoke(rpc, request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()

    def _name(self, to_followers: bool) -> str:
        """Return the name of a call's server, for a text."""
        return self._followers if to_followers else self.address

    def _invoke(
        self,
        rpc: str,
        request: object,
        timeout: float | None = None,
        to_followers: bool = False,
    ) -> Any:  # noqa: ANN401 - the stub has no types
        """Return what grpc does: the answer's bytes, or the stream of the answers.

        Raises:
            NotOwner: the call needs the owner, and the client does not know it.
        """
        self._raise_if_closed()
        stub = self._follower_stub if to_followers else self._owner_stub
        if stub is None:
            raise no_owner(rpc)
        try:
            return getattr(stub, rpc)(request, timeout=timeout)
        except ValueError:  # another thread has closed the channel since
            self._raise_if_closed()
            raise
