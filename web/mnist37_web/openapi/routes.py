"""The route of the OpenAPI document."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mnist37_web.openapi.document import build
from mnist37_web.replies.json_replies import JsonReply

PATH = "/openapi.json"


def route(described: list[BaseRoute]) -> BaseRoute:
    """Return the route of the document.

    Args:
        described: the routes that it describes.
    """
    content = orjson.dumps(build(described))

    async def document(request: Request) -> Response:  # noqa: ARG001
        return JsonReply(content)

    return Route(PATH, document)
