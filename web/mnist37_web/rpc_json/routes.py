"""The routes of mnist37.v1 as JSON: POST /mnist37.v1.Mnist37Service/METHOD."""

from __future__ import annotations

from mnist37_protos.v1 import mnist37_pb2 as pb
from starlette.routing import BaseRoute, Mount, Route, Router

from mnist37_web.rpc_json.calls import JsonCall

SERVICE = pb.DESCRIPTOR.services_by_name["Mnist37Service"]


def routes() -> list[BaseRoute]:
    """Return a route for each method; another method is an error, and no file of the page."""
    inner = [
        Route(f"/{method.name}", JsonCall(method), methods=["POST"]) for method in SERVICE.methods
    ]
    return [Mount(f"/{SERVICE.full_name}", app=Router(inner, redirect_slashes=False))]
