"""The route of predictions: POST /v2/models/mnist37[/versions/VERSION]/infer.

It is an application of ASGI in front of the router: Starlette's routing, requests and replies would
take a fifth of the time of a prediction.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import numpy as np
from mnist37_client import errors
from mnist37_client._rpc.messages.checks import decode, invalid
from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_web.access.bodies import BINARY_MAX, JSON_MAX
from mnist37_web.access.boundary import JSON_SIZE, TOKEN, App, Receive, Scope, Send
from mnist37_web.errors import HttpError
from mnist37_web.replies.json_replies import error_reply
from mnist37_web.rest.infer_answer import InferAnswer
from mnist37_web.rest.infer_request import OUTPUT, InferRequest, parse
from mnist37_web.rest.metadata import METHODS, MODEL
from mnist37_web.rest.pixels import INPUT
from mnist37_web.services import Services
from mnist37_web.upstream.callers import Caller

ROUTE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
# A larger body is parsed on a thread, so that other requests go on between the parser's calls.
LOOP_BYTES_MAX = 262_144
RAW_INPUT = bytes([pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])  # its tag


class Inference:
    """The application with the route of predictions in front.

    Args:
        app: the application, for all other routes.
        services: returns web's services.
    """

    def __init__(self, app: App, services: Callable[[], Services]) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply to a request for a prediction, or hand the request on."""
        path = scope.get("path", "")
        match = ROUTE.fullmatch(path) if path.endswith("/infer") else None
        if match is None:
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] != "POST":
                raise HttpError(
                    405, f"{scope['method']} {path[:200]!r}: must be POST", "METHOD_NOT_ALLOWED"
                )
            answer = await self._answer(scope, receive, match[1], match[2])
        except Exception as error:  # noqa: BLE001 - each has its reply
            reply = error_reply(error)
            if reply.status_code == 405:
                reply.headers["Allow"] = "POST"
            await reply(scope, receive, send)
            return
        headers, body = answer
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, receive: Receive, model: str, version: str | None
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the body of the reply."""
        headers = dict(scope["headers"])
        json_size = headers[JSON_SIZE].decode("latin-1") if JSON_SIZE in headers else None
        limit = JSON_MAX if json_size is None else BINARY_MAX
        length = headers.get(b"content-length", b"").decode("latin-1")
        web = self._services()
        with web.bodies.hold() as held:
            body = await held.read(receive, length, limit)
            if len(body) > LOOP_BYTES_MAX:
                request = await asyncio.to_thread(parse, body, json_size)
            else:
                request = parse(body, json_size)
            with web.callers.of(scope[TOKEN]) as caller:
                if version is None and model == MODEL and can_be_merged(request):
                    answer = await predict(caller, request)
                else:
                    answer = await infer(caller, request, model, version or "")
            return answer.reply(request.id, request.is_binary)


def can_be_merged(request: InferRequest) -> bool:
    """Return whether the client's `predict` takes these images.

    It takes no floats, which it would round, and no images whose values are all 0 or 1.
    """
    if request.message is not None or request.datatype != "UINT8":
        return False
    pixels = request.pixels
    if isinstance(pixels, bytes):
        return bool(pixels.lstrip(b"\0\1"))
    return bool(np.frombuffer(pixels, np.uint8).max() > 1)


async def predict(caller: Caller, request: InferRequest) -> InferAnswer:
    """Predict by the newest version, merged with concurrent calls of the same caller."""
    images = np.frombuffer(request.pixels, np.uint8)
    if request.shape[0] > 1:
        images = images.reshape(-1, images.size // request.shape[0])
    try:
        prediction = await caller.client.predict(images)
    except errors.HistoryLost:  # of earlier calls; the next one begins a new session
        prediction = await caller.client.predict(images)
    return InferAnswer(MODEL, str(prediction.version), prediction.probabilities)


async def infer(caller: Caller, request: InferRequest, model: str, version: str) -> InferAnswer:
    """Predict by the server's own method of this protocol."""
    message = request.message or pb.ModelInferRequest()
    message.model_name, message.model_version = model, version
    tensor = message.inputs[0] if message.inputs else message.inputs.add()
    tensor.name, tensor.datatype = INPUT, request.datatype
    tensor.shape[:] = request.shape
    # Protobuf would copy the pixels twice.
    size = encode_varint(len(request.pixels))
    content = b"".join((message.SerializeToString(), RAW_INPUT, size, request.pixels))
    answer = decode(pb.ModelInferResponse, await caller.call(METHODS + "ModelInfer", content))
    count = request.shape[0]
    if len(answer.outputs) != 1 or [*map(len, answer.raw_output_contents)] != [4 * count]:
        got = f"{len(answer.outputs)} outputs and {len(answer.raw_output_contents)} contents"
        raise invalid("outputs", got, f"one, {OUTPUT}, of {count:,} numbers")
    probabilities = np.frombuffer(answer.raw_output_contents[0], "<f4")
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in answer.parameters.items()
    }
    return InferAnswer(answer.model_name, answer.model_version, probabilities, parameters)


def encode_varint(number: int) -> bytes:
    """Return a number as protobuf encodes it: 7 bits in a byte, the lowest first."""
    # The server's predict_codec has this too, and may not be imported here.
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
