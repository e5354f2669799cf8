"""The routes of the Open Inference Protocol, except that of predictions."""

from __future__ import annotations

from starlette.routing import BaseRoute, Mount, Route, Router

from mnist37_web.rest import metadata

VERSIONED = ("/models/{model}", "/models/{model}/versions/{version}")


def routes() -> list[BaseRoute]:
    """Return the routes; what they do not know below /v2 is an error, and no file of the page."""
    inner: list[BaseRoute] = [
        Route("/", metadata.server),
        Route("/health/live", metadata.live),
        Route("/health/ready", metadata.ready),
        Route("/models/stats", metadata.statistics),
        Route("/repository/index", metadata.index, methods=["POST"]),
    ]
    for path in VERSIONED:
        inner += [
            Route(path, metadata.model),
            Route(f"{path}/ready", metadata.model_ready),
            Route(f"{path}/config", metadata.config),
            Route(f"{path}/stats", metadata.statistics),
        ]
    below = Mount("/v2", app=Router(inner, redirect_slashes=False))
    return [Route("/v2", metadata.server), below]
