"""The end of a call whose client has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from mnist37_web.access.bodies import ClientLeft, Receive

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine; cancel it if the client of the request leaves.

    Args:
        receive: of the request, whose body was read.
        work: the coroutine.

    Raises:
        ClientLeft: the client has left.
    """
    return await race(wait_for_disconnect(receive), work)


async def race(watch: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine; cancel it if another one, the watch, ends before.

    Raises:
        ClientLeft: the watch has ended: the client has left.
    """
    watcher, worker = asyncio.create_task(watch), asyncio.create_task(work)
    try:
        await asyncio.wait((watcher, worker), return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        watcher.result()
        raise ClientLeft
    finally:
        for task in (watcher, worker):
            task.cancel()
        await asyncio.gather(watcher, worker, return_exceptions=True)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client of a request leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
