"""The application of web: its routes behind the rules for all requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mnist37_client.errors import Mnist37Error
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from mnist37_web.access.boundary import App, Boundary
from mnist37_web.errors import HttpError
from mnist37_web.page import routes as page
from mnist37_web.replies.json_replies import reply_to_failure, reply_to_routing
from mnist37_web.rest import routes as rest
from mnist37_web.rest.inference import Inference
from mnist37_web.rpc_json import routes as rpc_json
from mnist37_web.services import open_services
from mnist37_web.settings import Settings


def build(settings: Settings, ports: Callable[[], set[int]]) -> tuple[App, Callable[[], None]]:
    """Return the application, and a function that ends its streams.

    Args:
        settings: of web.
        ports: returns the ports on which web listens.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            yield

    app = Starlette(
        routes=[*rest.routes(), *rpc_json.routes(), *page.routes()],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: reply_to_routing,
            HttpError: reply_to_failure,
            Mnist37Error: reply_to_failure,
            Exception: reply_to_failure,
        },
    )
    app.router.redirect_slashes = False

    def stop() -> None:
        app.state.services.live.close()

    inference = Inference(app, lambda: app.state.services)
    return Boundary(inference, settings, ports), stop
