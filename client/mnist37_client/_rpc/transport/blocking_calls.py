"""The way in which Client makes calls: its channels, its retries and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub as Stub
from numpy.typing import ArrayLike

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.failures.status import from_rpc, no_owner
from mnist37_client._rpc.lifetime import GuardedStream, Lifetime, NotCopied
from mnist37_client._rpc.methods.calls import CHANNEL_OPTIONS
from mnist37_client._rpc.methods.exchanges import Call, Exchange, Exchanges, Result
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.seconds import check_timeout
from mnist37_client._rpc.methods.sent_batches import SentBatches
from mnist37_client._rpc.replicas import Replicas
from mnist37_client._rpc.transport.follower_channels import FollowerChannels
from mnist37_client._rpc.transport.stub import make_stub
from mnist37_client.errors import Cancelled, Mnist37Error
from mnist37_client.results import Prediction

MAKERS = grpc.insecure_channel, grpc.secure_channel, CHANNEL_OPTIONS


class BlockingCalls(NotCopied):
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
        self._lifetime = Lifetime(self.address)
        self._retry_policy = RetryPolicy(retry_for)
        self._closed = False
        self._settings = settings
        self._exchanges = Exchanges(settings, self._retry_policy)
        self._owner_channel = self._owner_stub = None
        if settings.address is not None:
            self._owner_channel = settings.channel(*MAKERS)
            self._owner_stub = settings.stub(make_stub(self._owner_channel))
        self._follower_channels: FollowerChannels[grpc.Channel] = FollowerChannels(
            self._exchanges.followers, self._connect_followers, lambda channel: channel.close()
        )

    def close(self) -> None:
        """Close the connections and end every call in flight."""
        self._closed = True
        if self._lifetime.is_forked:
            return  # the connections are the parent's
        if self._owner_channel is not None:
            self._owner_channel.close()
        for channel in self._follower_channels.take_all():
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

    def _connect_followers(self, replicas: Replicas) -> tuple[grpc.Channel, Stub]:
        channel = self._settings.replica_channel(*MAKERS, replicas)
        return channel, self._settings.stub(make_stub(channel))

    def _refresh_followers(self) -> None:
        """Ask the owner for its followers; no read waits for the answer."""
        refresh = partial(self._carry_out, self._exchanges.refresh_followers())
        threading.Thread(target=refresh, name="mnist37-followers", daemon=True).start()

    def _carry_out(self, exchange: Exchange[Result]) -> Result:
        self._lifetime.check()
        if self._exchanges.followers.begin_refresh():
            self._refresh_followers()
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
        self._lifetime.check()
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

    def _predict_stream(self, batches: Iterator[ArrayLike]) -> Iterator[Prediction]:
        """Yield the predictions of a PredictStream; another stream continues one that fails."""
        if not self._exchanges.followers.is_known:
            self._carry_out(self._exchanges.find_followers())
        sent = SentBatches(self._exchanges, batches)
        while True:
            call = self._invoke("PredictStream", sent.requests(), None, sent.to_followers)
            try:
                yield from map(sent.parse, call)
                break
            except grpc.RpcError as error:
                pause = sent.next_pause(from_rpc(error, self._name(sent.to_followers)))
            finally:
                call.cancel()
            time.sleep(pause)
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
        return str(self._exchanges.followers) if to_followers else self.address

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
        try:
            if to_followers:
                answer = self._invoke_follower(rpc, request, timeout)
            elif self._owner_stub is None:
                raise no_owner(rpc)
            else:
                answer = getattr(self._owner_stub, rpc)(request, timeout=timeout)
        except ValueError:  # another thread has closed the channel since
            self._raise_if_closed()
            raise
        return answer if isinstance(answer, bytes) else GuardedStream(answer, self._lifetime)

    def _invoke_follower(self, rpc: str, request: object, timeout: float | None) -> Any:  # noqa: ANN401
        channel = self._follower_channels.begin_call()
        end = partial(self._follower_channels.end_call, channel)
        try:
            answer = getattr(channel.stub, rpc)(request, timeout=timeout)
        except BaseException:
            end()
            raise
        is_stream = isinstance(answer, grpc.RpcContext)
        if not (is_stream and answer.add_callback(end)):
            end()
        return answer
