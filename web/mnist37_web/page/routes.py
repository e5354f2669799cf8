"""The routes of the page: they act with web's own token, for browsers that show the page."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from mnist37_web.access.boundary import PAGE
from mnist37_web.errors import bad_request
from mnist37_web.live.views import view_tag, view_version
from mnist37_web.page.fields import BODY_MAX, parse_object, parse_pixels, parse_version
from mnist37_web.replies.json_replies import JsonReply
from mnist37_web.services import Services, services

STATIC = Path(__file__).parent / "static"
VERSIONS = 100  # in the list of the history


def routes() -> list[BaseRoute]:
    """Return the routes of the page, its files last: they match every path."""
    endpoints = (
        events,
        predict,
        model,
        example,
        errors,
        history,
        train,
        stop,
        step,
        initialize,
        restore,
    )
    page = [Route(PAGE + call.__name__, call, methods=["POST"]) for call in endpoints]
    return [*page, Mount("/", PageFiles(directory=STATIC, html=True))]


class PageFiles(StaticFiles):
    """The files of the page, which a browser asks about anew: they change with a release."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:  # noqa: ANN401
        """Return a file, or that it has not changed."""
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def fields_of(request: Request, **types: type) -> tuple[Services, dict[str, Any]]:
    """Return web's services, and the fields of a request's body."""
    web = services(request)
    return web, parse_object(await web.bodies.read(request, BODY_MAX), **types)


async def events(request: Request) -> Response:
    """Stream the server's state and its changes."""
    web, _ = await fields_of(request)
    content = web.live.events()
    return StreamingResponse(
        content, headers={"Cache-Control": "no-store"}, media_type="text/event-stream"
    )


async def predict(request: Request) -> Response:
    """Return the probability that an image is a 3."""
    web, fields = await fields_of(request, pixels=str, version=str)
    pixels = np.frombuffer(parse_pixels(fields["pixels"]), np.uint8)
    prediction = await web.own.client.predict(
        pixels.astype(np.float32) / 255, version=parse_version(fields["version"])
    )
    probability = float(prediction.probabilities[0])
    return JsonReply({"probability": probability, "version": prediction.version})


async def model(request: Request) -> Response:
    """Return the parameters of a version: 785 little-endian float32 in base64."""
    web, fields = await fields_of(request, version=str)
    found = await web.own.client.get_model(version=parse_version(fields["version"]))
    parameters = found.weights.astype("<f4").tobytes() + struct.pack("<f", found.bias)
    encoded = base64.b64encode(parameters).decode()
    return JsonReply({"version": found.version, "parameters": encoded})


async def example(request: Request) -> Response:
    """Return a validation image of a digit."""
    web, fields = await fields_of(request, digit=int)
    if fields["digit"] not in (3, 7):
        raise bad_request(f"digit: got {fields['digit']}; must be 3 or 7")
    return JsonReply(web.validation.example(fields["digit"]))


async def errors(request: Request) -> Response:
    """Return the validation images about which the model is surest and wrong."""
    web, _ = await fields_of(request)
    return JsonReply(await web.validation.errors(web.live.version))


async def history(request: Request) -> Response:
    """Return the newest retained versions, and the tags."""
    web, _ = await fields_of(request)
    client = web.own.client
    versions, tags = await client.versions(VERSIONS), await client.tags()
    return JsonReply(
        {
            "versions": [view_version(version) for version in versions],
            "tags": [view_tag(tag) for tag in tags],
        }
    )


async def train(request: Request) -> Response:
    """Begin a training run, which web follows until it ends or is stopped."""
    web, fields = await fields_of(
        request, epochs=int, learning_rate=float, schedule=str, final_learning_rate=float, seed=int
    )
    if fields["epochs"] is None:
        raise bad_request("epochs: missing; must be 1 to 1,000,000")
    await web.runs.begin(web.live.report, **fields)
    return JsonReply({})


async def stop(request: Request) -> Response:
    """Stop the runs that the page has begun."""
    web, _ = await fields_of(request)
    return JsonReply({"stopped": web.runs.stop()})


async def step(request: Request) -> Response:
    """Do one step of SGD on the next mini-batch of the training set."""
    web, fields = await fields_of(request, learning_rate=float)
    result = await web.own.client.step(learning_rate=fields["learning_rate"])
    return JsonReply({"loss": result.loss, "version": result.version})


async def initialize(request: Request) -> Response:
    """Forget what the model has learnt: draw its parameters anew, or set them to zero."""
    web, fields = await fields_of(request, std=float)
    version = await web.own.client.initialize(std=fields["std"])
    return JsonReply({"version": version})


async def restore(request: Request) -> Response:
    """Make the parameters of a retained version the model's again."""
    web, fields = await fields_of(request, version=str)
    version = parse_version(fields["version"])
    if version is None:
        raise bad_request("version: missing; must be a number or a tag")
    version = await web.own.client.restore(version)
    return JsonReply({"version": version})
