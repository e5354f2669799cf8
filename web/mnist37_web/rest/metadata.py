"""What a server and its model are, from the server's messages: health, metadata, statistics."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message
from mnist37_client import health
from mnist37_client._rpc.messages.checks import decode
from mnist37_client.errors import Unavailable
from mnist37_protos.inference import open_inference_pb2 as pb
from starlette.requests import Request
from starlette.responses import Response

from mnist37_web.access.boundary import TOKEN
from mnist37_web.access.json_bodies import check_names, load_object, show
from mnist37_web.errors import bad_request
from mnist37_web.replies.json_replies import JsonReply, describe_error
from mnist37_web.services import services

MODEL = "mnist37"
METHODS = "/inference.GRPCInferenceService/"
BINARY_TENSORS = "binary_tensor_data"  # the extension of HTTP that web itself has

INDEX_BODY_MAX = 1_024  # bytes

M = TypeVar("M", bound=Message)


async def live(request: Request) -> Response:  # noqa: ARG001
    """Reply that web is alive: it answers."""
    return JsonReply({"live": True})


async def ready(request: Request) -> Response:
    """Reply whether the server is serving. The question needs no token."""
    with services(request).callers.of(None) as caller:
        answer = await caller.call(health.CHECK, health.REQUEST)
    if answer != health.SERVING:
        return not_ready("the server is not serving", ready=False)
    return JsonReply({"ready": True})


async def server(request: Request) -> Response:
    """Reply with the name and the version of the server, and its extensions."""
    found = await ask(
        request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
    )
    extensions = sorted({*found.extensions, BINARY_TENSORS})
    return JsonReply({"name": found.name, "version": found.version, "extensions": extensions})


async def model(request: Request) -> Response:
    """Reply with the versions that the server has, and the inputs and outputs of the model."""
    message = pb.ModelMetadataRequest(**names_of(request))
    return JsonReply(view(await ask(request, "ModelMetadata", message, pb.ModelMetadataResponse)))


async def model_ready(request: Request) -> Response:
    """Reply whether the server is serving the model; the version must be retained."""
    message = pb.ModelReadyRequest(**names_of(request))
    found = await ask(request, "ModelReady", message, pb.ModelReadyResponse)
    if not found.ready:
        return not_ready(f"{message.name} is not ready", name=message.name, ready=False)
    return JsonReply({"name": message.name, "ready": True})


async def config(request: Request) -> Response:
    """Reply with the configuration of the model, for clients that make batches."""
    message = pb.ModelConfigRequest(**names_of(request))
    found = await ask(request, "ModelConfig", message, pb.ModelConfigResponse)
    return JsonReply(view(found.config))


async def statistics(request: Request) -> Response:
    """Reply with the number of predictions, and how long they took."""
    message = pb.ModelStatisticsRequest(**names_of(request))
    found = await ask(request, "ModelStatistics", message, pb.ModelStatisticsResponse)
    return JsonReply(view(found))


async def index(request: Request) -> Response:
    """Reply with the models of the server: the one that there is."""
    body = await services(request).bodies.read(request, INDEX_BODY_MAX)
    content = load_object(body) if body else {}
    check_names("", content, ("ready", "repository_name"))
    name, is_ready = content.get("repository_name", ""), content.get("ready", False)
    if not isinstance(name, str):
        raise bad_request(f"repository_name: got {show(name)}; must be a text")
    if not isinstance(is_ready, bool):
        raise bad_request(f"ready: got {show(is_ready)}; must be true or false")
    message = pb.RepositoryIndexRequest(repository_name=name, ready=is_ready)
    found = await ask(request, "RepositoryIndex", message, pb.RepositoryIndexResponse)
    return JsonReply(view(found)["models"])


async def ask(request: Request, method: str, message: Message, kind: type[M]) -> M:
    """Return the server's answer to a message, with the token of a request."""
    with services(request).callers.of(request.scope[TOKEN]) as caller:
        return decode(kind, await caller.call(METHODS + method, message.SerializeToString()))


def names_of(request: Request) -> dict[str, str]:
    """Return the model and the version in the path of a request."""
    parameters = request.path_params
    return {"name": parameters.get("model", ""), "version": parameters.get("version", "")}


def not_ready(text: str, **fields: object) -> Response:
    """Return the reply that says that something is not ready."""
    status, body = describe_error(Unavailable(text))
    return JsonReply({**body, **fields}, status, {"Retry-After": "1"})


def view(message: Message) -> dict[str, Any]:
    """Return a message as JSON of HTTP: with all its fields, whole numbers as numbers.

    Protobuf's own JSON has 64-bit numbers as texts, and leaves out zeros.
    """
    return {
        field.name: view_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
    }


def view_field(field: Any, value: Any) -> Any:  # noqa: ANN401
    """Return the value of a field: a list if it is repeated, the name of an enum's value."""
    if field.is_repeated:
        return [view_value(field, each) for each in value]
    return view_value(field, value)


def view_value(field: Any, value: Any) -> Any:  # noqa: ANN401
    """Return a single value of a field."""
    if field.message_type is not None:
        return view(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
