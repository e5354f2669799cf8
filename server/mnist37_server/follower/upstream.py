"""The connection of a follower to the server that it follows: two calls, and their errors.

That server is the owner of the model, or a follower in turn, which answers both calls too.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.domain.address import for_callers
from mnist37_server.domain.position import Position
from mnist37_server.domain.route import AT_THE_OWNER, Route
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.errors import NotFound, Reason, Refusal, Unavailable
from mnist37_server.follower.replica import InvalidUpdate, Update

SERVICE = f"/{pb.DESCRIPTOR.services_by_name['Mnist37Service'].full_name}/"
FETCH_SECONDS = 5.0  # for a version that is not held
CONNECT_MS = 2_000
# The reasons of a follower's refusals that also hold for a follower of this follower.
FOLLOWERS_OWN = {Reason.BEHIND.name, Reason.STALE.name, Reason.OWNER_UNREACHABLE.name}
OPENED_ANEW = "the connection is being opened anew"
# A follower that reads slowly must miss versions, and not find old ones in its buffers: a message
# has 3.2 kB. gRPC would widen the window as it measures the connection.
WINDOW_BYTES = 8_192

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),  # how long an attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
]


class FollowStream:
    """An open Follow.

    Args:
        messages: the owner's.
        end: ends the call; any thread may call it.
    """

    def __init__(self, messages: Iterable[pb.FollowResponse], end: Callable[[], object]) -> None:
        self._messages = messages
        self.end = end

    def __iter__(self) -> Iterator[Update]:
        """Yield the owner's messages.

        Raises:
            grpc.RpcError: the stream has ended.
            InvalidUpdate: the contract does not allow a message.
        """
        for message in self._messages:
            yield parse_update(message)


class Upstream:
    """The connection to the owner.

    Args:
        address: of the owner, or of another follower, HOST:PORT.
        credentials: returns those for TLS, at each connection; None: plain text.
        token_file: holds the token of the role follow; read at each connection.
        name: of this follower.
        advertised: the address at which others reach this follower.
        server_name: the name in the owner's certificate; None: the one in its address.
    """

    def __init__(
        self,
        address: str,
        credentials: Callable[[], grpc.ChannelCredentials | None] | None,
        token_file: Path | None,
        name: str,
        advertised: str,
        server_name: str | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self._credentials = credentials
        self._token_file = token_file
        self._advertised = advertised
        self._options: list[tuple[str, int | str]] = list(OPTIONS)
        if server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", server_name))
        # guarded by _lock: the replacement of _channel
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()

    def connect(self) -> None:
        """Open a new connection; the calls on the connection before, if there is one, end.

        Raises:
            OSError, CannotStart: a file of the settings cannot be used now.
        """
        if self._token_file is not None:
            token = self._token_file.read_text().strip()
            self._metadata = (("authorization", f"Bearer {token}"),)
        credentials = None if self._credentials is None else self._credentials()
        channel = (
            grpc.insecure_channel(self.address, self._options)
            if credentials is None
            else grpc.secure_channel(self.address, credentials, self._options)
        )
        with self._lock:
            previous, self._channel = self._channel, channel
        if previous is not None:
            previous.close()

    def close(self) -> None:
        """Close the connection; its calls end."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def follow(self, held: Position | None) -> FollowStream:
        """Open a Follow.

        Args:
            held: the position that the follower holds; None for nothing.
        """
        request = pb.FollowRequest(id=self.name, address=self._advertised)
        if held is not None:
            request.position.CopyFrom(pb.Position(start=held.start, version=held.version))
        channel = self._channel
        if channel is None:
            raise ConnectionError("there is no connection to the owner")
        call = channel.unary_stream(
            f"{SERVICE}Follow",
            pb.FollowRequest.SerializeToString,
            pb.FollowResponse.FromString,
        )(request, metadata=self._metadata)
        return FollowStream(call, call.cancel)

    def fetch(self, version: int | str, held: Position) -> tuple[Snapshot, int]:
        """Return a version and the owner's start, from an owner of the same history.

        Args:
            version: its number, or a tag.
            held: the position that the follower holds, which must be in the owner's history.

        Raises:
            NotFound: the owner does not retain this version, or there is no such tag.
            Unavailable: the owner cannot be reached, or has another history by now.
        """
        request = pb.GetModelRequest(start=held.start, min_version=held.version)
        if isinstance(version, int):
            request.version = version
        else:
            request.tag = version
        try:
            channel = self._channel
            if channel is None:
                raise owner_unreachable(self.address, "there is no connection yet")
            answer = channel.unary_unary(
                f"{SERVICE}GetModel",
                pb.GetModelRequest.SerializeToString,
                pb.GetModelResponse.FromString,
            )(request, timeout=FETCH_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise refusal_of(error, self.address) from error
        except ValueError as error:  # the channel was closed meanwhile
            raise owner_unreachable(self.address, OPENED_ANEW) from error
        # How the version was made is not part of the answer, and no read tells it.
        content = answer.weights + struct.pack("<f", answer.bias)
        return Snapshot(answer.version, content, 0, Origin.IMPORT), answer.start


def parse_update(message: pb.FollowResponse) -> Update:
    """Return a message of the owner as a value.

    Raises:
        InvalidUpdate: the origin of the version is unknown.
    """
    try:
        origin = Origin(message.origin)
    except ValueError as error:
        raise InvalidUpdate(f"there is no origin {message.origin}") from error
    return Update(
        Position(message.position.start, message.position.version),
        message.parameters,
        origin,
        message.run if message.HasField("run") else None,
        tuple(Position(position.start, position.version) for position in message.starts),
        max(0.0, message.age.ToNanoseconds() / 1e9),
        not message.owner_lost,
        Route(message.owner, tuple(message.followers)),
    )


def refusal_of(error: grpc.RpcError, address: str) -> Refusal:
    """Return the refusal for the caller of a read for which the owner was asked in vain."""
    code, text = describe(error)
    if code is grpc.StatusCode.NOT_FOUND:
        info = error_info(error)
        if info is not None and info.reason in Reason.__members__:
            return NotFound(text, Reason[info.reason], **info.metadata)
    if code is grpc.StatusCode.UNAVAILABLE:
        info = error_info(error)
        if info is not None and info.reason in FOLLOWERS_OWN:  # it follows too, and says why
            return Unavailable(text, Reason[info.reason])
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return Unavailable(
            "the owner has another history by now, which this follower is about to get; ask again"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return owner_unreachable(address, f"no answer came within {FETCH_SECONDS:g} seconds")
    if code is grpc.StatusCode.CANCELLED:  # with the connection, which nobody else cancels
        return owner_unreachable(address, OPENED_ANEW)
    return owner_unreachable(address, f"{code.name}: {text}")


def route_of_refusal(error: grpc.RpcError) -> Route:
    """Return the way to a follower that has no version yet; an empty one for another error."""
    info = error_info(error)
    if info is None or info.reason != Reason.OWNER_UNREACHABLE.name:
        return AT_THE_OWNER
    return Route(info.metadata["owner"], tuple(info.metadata["followers"].split()))


def owner_unreachable(address: str, cause: str) -> Unavailable:
    """Return the refusal of a read for which the follower needs its owner."""
    text = f"the follower needs {address}, which it follows, for this, and cannot reach it: {cause}"
    return Unavailable(for_callers(address, text), Reason.OWNER_UNREACHABLE)


def describe(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Return the code and the text of an error."""
    call = cast(grpc.Call, error)  # which every error of a call is too
    return call.code(), call.details() or ""


def error_info(error: grpc.RpcError) -> ErrorInfo | None:
    """Return what an error of the owner says to programs; None if it says nothing."""
    info = ErrorInfo()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info):
                return info
    except (DecodeError, ValueError):
        pass  # a proxy damaged the details, or attached them to another error
    return None
