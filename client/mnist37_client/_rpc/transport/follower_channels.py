"""The channel to a client's followers, which is made anew when the followers have changed.

A channel of gRPC has one list of addresses for ever. A channel that was replaced is closed when its
last call has ended. Channels share the connections to the followers that they have in common.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub as Stub

from mnist37_client._rpc.methods.follower_list import FollowerList
from mnist37_client._rpc.replicas import Replicas
from mnist37_client.errors import Unavailable

C = TypeVar("C")  # a channel, of threads or of asyncio


class FollowerChannel(Generic[C]):
    """A channel to some followers."""

    def __init__(self, replicas: Replicas, channel: C, stub: Stub) -> None:
        self.replicas = replicas
        self.channel = channel
        self.stub = stub
        self.calls = 0  # in flight


class FollowerChannels(Generic[C]):
    """The present channel to the followers, and the earlier ones that still have calls.

    Args:
        followers: of the client.
        connect: makes a channel and its stub.
        close: closes a channel that has no calls.
    """

    def __init__(
        self,
        followers: FollowerList,
        connect: Callable[[Replicas], tuple[C, Stub]],
        close: Callable[[C], None],
    ) -> None:
        self._followers = followers
        self._connect = connect
        self._close = close
        # guarded by _lock: the fields below, and the calls of each channel
        self._lock = threading.Lock()
        self._current: FollowerChannel[C] | None = None
        self._earlier: list[FollowerChannel[C]] = []

    def begin_call(self) -> FollowerChannel[C]:
        """Return the channel for a call, which ends with `end_call`.

        Raises:
            Unavailable: the owner has named no follower yet.
        """
        replicas = self._followers.replicas
        with self._lock:
            current = self._current
            if replicas is not None and (current is None or current.replicas is not replicas):
                if current is not None:
                    self._earlier.append(current)
                current = self._current = FollowerChannel(replicas, *self._connect(replicas))
            if current is None:
                raise Unavailable("the owner's list has no follower any more")
            current.calls += 1
            unused = [each for each in self._earlier if not each.calls]
            self._earlier = [each for each in self._earlier if each.calls]
        # Not in `end_call`, which gRPC may call in a thread of the channel.
        for each in unused:
            self._close(each.channel)
        return current

    def end_call(self, channel: FollowerChannel[C]) -> None:
        """Record the end of a call; any thread may call it."""
        with self._lock:
            channel.calls -= 1

    def take_all(self) -> list[C]:
        """Return all channels, which the caller closes; there are none afterwards."""
        with self._lock:
            found = [*self._earlier, *([self._current] if self._current else [])]
            self._current, self._earlier = None, []
        return [each.channel for each in found]
