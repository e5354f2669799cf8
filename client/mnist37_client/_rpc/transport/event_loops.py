"""The connections of AsyncClient: one for each event loop, because grpc.aio binds a channel to one.

So a client may be made anywhere, and used in one `asyncio.run` after the other or in the loops of
several threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress

import grpc.aio
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub as Stub

from mnist37_client._rpc.transport.batching import RequestBatcher
from mnist37_client._rpc.transport.follower_channels import FollowerChannels
from mnist37_client.errors import Mnist37Error

LAST_EVENTS_SECONDS = 0.01


class BackgroundTasks:
    """The tasks of a connection that no caller waits for; only code in its event loop uses it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine, which raises nothing."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks:
            task.cancel()


class LoopConnection:
    """The connection in one event loop; only code in that loop uses it.

    Args:
        owner_channel: to the owner; None if the client knows none.
        owner: the stub of that channel.
        followers: the channels to the followers.
        batcher: merges calls of Predict; None if they are not merged.
        tasks: of this connection, which end with it.
    """

    def __init__(
        self,
        owner_channel: grpc.aio.Channel | None,
        owner: Stub | None,
        followers: FollowerChannels[grpc.aio.Channel],
        batcher: RequestBatcher | None,
        tasks: BackgroundTasks,
    ) -> None:
        self.owner = owner
        self.followers = followers
        self.batcher = batcher
        self.tasks = tasks
        self._owner_channel = owner_channel
        self._lifetime = self._live()
        with suppress(StopIteration):  # it runs until its `yield` and waits there for nothing
            self._lifetime.__anext__().__await__().send(None)

    async def close(self) -> None:
        """End every call in flight."""
        await self._lifetime.aclose()

    async def _live(self) -> AsyncGenerator[None]:
        """Close the channels at the end: of the connection, or of its event loop.

        `asyncio.run` ends the open async generators before it closes its loop.
        """
        try:
            yield
        finally:
            if self.batcher:
                self.batcher.close()
            self.tasks.cancel()
            if self._owner_channel is not None:
                await self._owner_channel.close()
            for channel in self.followers.take_all():
                await channel.close()
            # grpc.aio prints an error if the end of a call arrives after the end of its loop.
            await asyncio.sleep(LAST_EVENTS_SECONDS)


class LoopConnections:
    """The connections of one client.

    Args:
        connect: makes a connection in the running event loop.
    """

    def __init__(self, connect: Callable[[], LoopConnection]) -> None:
        self._connect = connect
        # guarded by _lock: the changes of _by_loop
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopConnection] = {}

    def current(self) -> LoopConnection:
        """Return the running event loop's connection, made at the first call.

        Raises:
            Mnist37Error: no event loop is running.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise Mnist37Error(
                "AsyncClient: no event loop of asyncio is running; call this in a coroutine, or use"
                " Client"
            ) from None
        try:
            return self._by_loop[loop]
        except KeyError:
            return self._add(loop)

    async def close(self) -> None:
        """Close all connections, those of the loops in other threads as soon as they can."""
        with self._lock:
            connections, self._by_loop = self._by_loop, {}
        own = connections.pop(asyncio.get_running_loop(), None)
        for loop, connection in connections.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(connection.close(), loop)
        if own is not None:
            await own.close()

    def _add(self, loop: asyncio.AbstractEventLoop) -> LoopConnection:
        """Return a new connection, and forget those of loops that are closed."""
        connection = self._connect()
        with self._lock:
            for other in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[other]
            self._by_loop[loop] = connection
        return connection
