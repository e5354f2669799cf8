"""Tests of calls whose connection fails: no error is left for asyncio to complain of."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import grpc
from mnist37_front.asgi.frames import Message
from mnist37_front.asgi.server import AsgiServer

SERVICE = "probe.v1.Probe"


class SlowCaller:
    """A caller that sends no message, and whose connection takes no status either."""

    def __init__(self) -> None:
        self._has_failed = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.wait_for(self._has_failed.wait(), 20)
        return {"type": "http.disconnect"}

    async def send(self, event: Message) -> None:  # noqa: ARG002
        self._has_failed.set()
        raise OSError("the connection has failed")


def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:  # noqa: ARG001
    return b"answer"


async def drop_a_call() -> list[str]:
    """Make a call that is dropped; return what asyncio complains of."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(str(context["message"])))
    server = AsgiServer(None, 2**20, message_seconds_max=0.05)
    handler: Any = grpc.stream_unary_rpc_method_handler(answer)
    server.add_registered_method_handlers(SERVICE, {"Unary": handler})
    caller = SlowCaller()
    scope = {"path": f"/{SERVICE}/Unary", "headers": []}
    await server(scope, caller.receive, caller.send)
    await asyncio.sleep(0)  # the task that sent the status is done
    gc.collect()
    return found


def test_a_status_that_nobody_takes_is_no_error() -> None:
    assert asyncio.run(drop_a_call()) == []
