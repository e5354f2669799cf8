"""The calls of one client by their kind: a read goes to a follower, or to the owner.

An exchange is a generator that yields calls, receives the bytes of the answer to each, and returns
a result. Client and AsyncClient carry it out; they differ by `await`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Generator
from contextlib import suppress
from copy import copy
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.messages.checks import decode
from mnist37_client._rpc.messages.requests import IMAGES_PER_CHUNK
from mnist37_client._rpc.methods.follower_list import FollowerList
from mnist37_client._rpc.methods.retry import RetryAttempts, RetryPolicy, is_temporary
from mnist37_client._rpc.methods.session import Floor, Read, Session
from mnist37_client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    HistoryLost,
    InvalidInput,
    Mnist37Error,
    NotFound,
    Unauthenticated,
    one_line,
)

# Of a message to followers. The time limit of an attempt is the same for all sizes.
IMAGES_TO_FOLLOWERS = 1_024
HINT_SECONDS = 1.0


class Call(NamedTuple):
    """A call of an RPC with one answer."""

    rpc: str
    request: Message
    is_hint: bool = False  # the caller does not wait for its answer, so it must come soon
    to_followers: bool = False
    is_retried: bool = True
    pause: float = 0.0  # seconds to wait before it

    def time_limit(self, timeout: float | None) -> float | None:
        """Return the time limit of the call in seconds, where the client's is `timeout`."""
        if not self.is_hint:
            return timeout
        return HINT_SECONDS if timeout is None else min(timeout, HINT_SECONDS)


LIST_FOLLOWERS = Call("ListFollowers", pb.ListFollowersRequest(), is_hint=True, is_retried=False)

Result = TypeVar("Result")
Exchange = Generator[Call, bytes, Result]

ReadAnswer = TypeVar("ReadAnswer", pb.PredictResponse, pb.GetLossResponse, pb.GetModelResponse)
WriteAnswer = TypeVar(
    "WriteAnswer",
    pb.StepResponse,
    pb.InitializeResponse,
    pb.RestoreResponse,
    pb.ImportResponse,
    pb.TagVersionResponse,
    pb.DeleteTagResponse,
)


class Exchanges:
    """The exchanges of one client, which keep its session.

    Args:
        settings: of the client's connections.
        retry_policy: of the client.
    """

    def __init__(self, settings: ConnectionSettings, retry_policy: RetryPolicy) -> None:
        self.session = Session()
        self._retry_policy = retry_policy
        self.has_owner = settings.address is not None
        self.followers = FollowerList(settings)

    def attempts(self) -> RetryAttempts:
        """Return the attempts of a new read."""
        return self._retry_policy.attempts()

    def reads_from_followers(self, floor: Floor, fresh: bool) -> bool:
        """Return whether a read goes to followers first.

        Args:
            floor: of the read.
            fresh: whether the caller wants the owner's answer.
        """
        needs_owner = fresh or (self.has_owner and floor.unproven)
        return self.followers.replicas is not None and not needs_owner

    def images_per_message(self, fresh: bool) -> int:
        """Return the most images of a message of a read with many."""
        _check_fresh(fresh)
        to_followers = self.followers.may_have_some and not fresh
        return IMAGES_TO_FOLLOWERS if to_followers else IMAGES_PER_CHUNK

    def read(
        self,
        rpc: str,
        request: Read,
        kind: type[ReadAnswer],
        parse: Callable[[ReadAnswer], Result],
        *,
        fresh: bool = False,
        is_part: bool = False,
    ) -> Exchange[Result]:
        """Call an RPC that reads, with the session's floor, and return the parsed answer.

        Args:
            rpc: its name.
            request: without a floor.
            kind: of the answer.
            parse: checks the answer and returns the result.
            fresh: whether only the owner may answer.
            is_part: whether the request asks for the version of an earlier part of the read, which
                a follower may have missed.
        """
        _check_fresh(fresh)
        if not self.followers.is_known and not fresh:
            yield from self.find_followers()
        while True:
            sent = self.session.floor
            sent.put_into(request)
            try:
                if self.reads_from_followers(sent, fresh):
                    content = yield from self._read_from_followers(rpc, request, is_part)
                else:
                    content = yield Call(rpc, request)
            except HistoryLost:
                if self.session.begin_anew(sent):
                    raise
                continue
            answer = decode(kind, content)
            result = parse(answer)
            self.session.record_read(sent, answer.start, answer.version)
            return result

    def _read_from_followers(self, rpc: str, request: Read, is_part: bool) -> Exchange[bytes]:
        """Ask a follower, and the owner if that fails; if it is away, begin again."""
        if not self.has_owner:
            return (yield Call(rpc, request, to_followers=True))
        attempts = self.attempts()
        pause = 0.0
        while True:
            try:
                return (yield Call(rpc, request, to_followers=True, is_retried=False, pause=pause))
            except Mnist37Error as error:
                if not asks_owner(error) and not (is_part and isinstance(error, NotFound)):
                    raise
                self.followers.record_failure()
            try:
                return (yield Call(rpc, request, is_retried=False))
            except Mnist37Error as error:
                pause = attempts.next_pause(error)

    def find_followers(self) -> Exchange[None]:
        """Ask the owner for its followers, for the first time.

        If the owner does not answer, the next read asks again.

        Raises:
            PermissionDenied: the caller may not see the list.
            Mnist37Error: there is no list, or it names no follower that the client may ask.
        """
        try:
            content = yield LIST_FOLLOWERS
        except Mnist37Error as error:
            if isinstance(error, DeadlineExceeded) or is_temporary(error):
                return
            raise for_list(error) from error
        self.followers.record(content)

    def refresh_followers(self) -> Exchange[None]:
        """Ask the owner for its followers again; if that fails, the former list stays."""
        with suppress(Mnist37Error):
            self.followers.record((yield LIST_FOLLOWERS))

    def write(
        self, call: Call, kind: type[WriteAnswer], parse: Callable[[WriteAnswer], Result]
    ) -> Exchange[Result]:
        """Make the call of a write and return the parsed answer.

        Args:
            call: of the write.
            kind: of the answer.
            parse: checks the answer and returns the result.
        """
        sent = self.session.floor
        answer = decode(kind, (yield call))
        result = parse(answer)
        self.session.record_owner(sent, answer.start, answer.version)
        return result


def _check_fresh(fresh: bool) -> None:
    if fresh is not False and fresh is not True:
        raise InvalidInput(f"fresh: got {one_line(reprlib.repr(fresh))}; must be True or False")


def for_list(error: Mnist37Error) -> Mnist37Error:
    """Return an error of ListFollowers whose text says why the client has made that call."""
    explained = copy(error)
    explained.args = (f"{error}; replicas='owner' asks the owner for its list of followers",)
    return explained


def asks_owner(error: Mnist37Error) -> bool:
    """Return whether the owner may well answer what a follower did not.

    A follower is too far behind, cannot be reached, has too many calls, does not have the caller's
    token yet, or has another history. Its other errors are about the request itself.
    """
    return is_temporary(error) or isinstance(error, FailedPrecondition | Unauthenticated)
