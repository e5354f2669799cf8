"""The page and the HTTP API in the front: the application of mnist37_web, in Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mnist37_web.access.boundary import App
from mnist37_web.app import build

from mnist37_front.asgi.exchanges import Exchange
from mnist37_front.asgi.frames import Message, Receive, Send
from mnist37_front.asgi.server import Scope
from mnist37_front.settings import FrontSettings


class HttpApplications:
    """One application for each event loop: the connections of a client belong to a loop.

    Args:
        settings: of the front.
    """

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._by_loop: dict[asyncio.AbstractEventLoop, App] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._by_loop.get(asyncio.get_running_loop())
        if app is None:
            await reply_nothing(send)
        else:
            exchange = Exchange(receive, send, scope["method"])
            await app(dict(scope), exchange.receive, exchange.send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have an application in the running event loop, for the block."""
        if not self._settings.http:
            yield
            return
        loop = asyncio.get_running_loop()
        port = self._settings.parsed_address.port
        app, stop = build(self._settings.web_settings(), lambda: {port})
        events: asyncio.Queue[Message] = asyncio.Queue()
        answers: asyncio.Queue[Message] = asyncio.Queue()

        async def live() -> None:
            await app({"type": "lifespan", "state": {}}, events.get, answers.put)

        life = asyncio.create_task(live())
        await events.put({"type": "lifespan.startup"})
        await answers.get()
        self._by_loop[loop] = app
        try:
            yield
        finally:
            del self._by_loop[loop]
            stop()
            await events.put({"type": "lifespan.shutdown"})
            await life


async def reply_nothing(send: Send) -> None:
    """Reply that there is no HTTP here."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    text = b'{"error":"this front answers gRPC alone","reason":"NO_SUCH_ROUTE"}'
    await send({"type": "http.response.body", "body": text})
