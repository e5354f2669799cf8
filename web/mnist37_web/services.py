"""What the routes of web share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.requests import Request

from mnist37_web.access.bodies import Bodies
from mnist37_web.live.feed import Live
from mnist37_web.live.runs import OwnRuns
from mnist37_web.live.validation import Validation
from mnist37_web.settings import Settings
from mnist37_web.upstream.callers import Caller, Callers

RETRY_RUNS_FOR = 60.0  # seconds: a run of the page goes on after a restart of the server


@dataclass(frozen=True)
class Services:
    """The services of one web, in one event loop."""

    callers: Callers  # of REST and JSON, each with its own token
    own: Caller  # with web's own token
    bodies: Bodies
    live: Live
    runs: OwnRuns
    validation: Validation
    stopping: asyncio.Event  # set when web begins to shut down

    def stop(self) -> None:
        """End the streams."""
        self.live.close()
        self.stopping.set()


def services(request: Request) -> Services:
    """Return the services for a request."""
    found: Services = request.app.state.services
    return found


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Make the services in the running event loop, and close them at the end."""
    callers = Callers(settings.upstream)
    own = callers.own(settings.token)
    runs = OwnRuns(callers.own(settings.token, RETRY_RUNS_FOR).client)
    live = Live(own, runs.owns)
    services = Services(callers, own, Bodies(), live, runs, Validation(own.client), asyncio.Event())
    task = asyncio.create_task(live.run())
    try:
        yield services
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await callers.close()
