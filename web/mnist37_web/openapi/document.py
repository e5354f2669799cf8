"""The OpenAPI document of all routes for programs, from the routes and the descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from typing import Any

from mnist37_protos.inference import open_inference_pb2 as inference
from starlette.routing import BaseRoute, Mount, Route, Router

from mnist37_web.openapi.infer_schemas import INFER, SCHEMAS, index_body, infer_answers
from mnist37_web.openapi.messages import Messages, Schema
from mnist37_web.rest import metadata
from mnist37_web.rest.routes import VERSIONED
from mnist37_web.rpc_json.calls import TIMEOUT
from mnist37_web.rpc_json.routes import SERVICE

# What each of REST's endpoints answers.
ANSWERS: dict[Any, Any] = {
    metadata.live: {"type": "object", "properties": {"live": {"type": "boolean"}}},
    metadata.ready: {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    metadata.server: "ServerMetadataResponse",
    metadata.model: "ModelMetadataResponse",
    metadata.model_ready: {
        "type": "object",
        "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
    },
    metadata.config: "ModelConfig",
    metadata.statistics: "ModelStatisticsResponse",
    metadata.index: "RepositoryIndexResponse",
}
ERRORS = {
    "400": "The request is wrong; the text names the field.",
    "401": "A token, or the password of web, is missing or wrong.",
    "403": "The token's role does not allow this.",
    "404": "There is no such version, model, run or route.",
    "408": "The request came too slowly.",
    "409": "The request_id belongs to another write, or the run cannot resume.",
    "413": "The body is too large.",
    "415": "The body has a type that the route does not read, or is compressed.",
    "429": "There is no room for it; if that may pass, Retry-After says when to try again.",
    "431": "The headers are too large.",
    "500": "A fault of the server or of web, whose log has the id in the text.",
    "502": "The server's answer is not valid.",
    "503": "The server is away or too busy; Retry-After says when to try again.",
    "504": "The time of the call is over.",
}


def build(routes: list[BaseRoute]) -> Schema:
    """Return the document.

    Args:
        routes: of REST and of mnist37.v1.
    """
    plain, protobuf = Messages(is_protobuf=False), Messages(is_protobuf=True)
    paths: dict[str, Schema] = {}
    for path, route in walk(routes):
        if path.startswith(f"/{SERVICE.full_name}/"):
            paths[path] = {"post": describe_call(path, protobuf)}
        else:
            method = "post" if "POST" in (route.methods or ()) else "get"
            paths[path] = {method: describe_metadata(route, path, plain)}
    for path in VERSIONED:
        paths[f"/v2{path}/infer"] = {"post": describe_infer(f"/v2{path}/infer")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mnist37",
            "version": installed_version("mnist37"),
            "description": "One live model, which is trained and served at the same time: the Open"
            " Inference Protocol over HTTP, and every method of mnist37.v1 as JSON.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": dict(sorted(paths.items())),
        "security": [{}, {"token": []}, {"password": []}],
        "components": {
            "schemas": {**plain.schemas, **protobuf.schemas, **SCHEMAS},
            "responses": {
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": refer("Error")}},
                }
                for status, text in ERRORS.items()
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def walk(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route]]:
    """Yield each route with its whole path."""
    for route in routes:
        if isinstance(route, Mount) and isinstance(route.app, Router):
            yield from walk(route.app.routes, prefix + route.path)
        elif isinstance(route, Route) and route.path != "/":
            yield prefix + route.path, route


def describe_metadata(route: Route, path: str, messages: Messages) -> Schema:
    """Return the operation of a route that asks for metadata."""
    answer = ANSWERS[route.endpoint]
    schema: Schema
    if isinstance(answer, str):
        schema = messages.refer(inference.DESCRIPTOR.message_types_by_name[answer])
    else:
        schema = answer
    if route.endpoint is metadata.index:  # Triton answers with the list alone
        schema = messages.schemas["inference.RepositoryIndexResponse"]["properties"]["models"]
    operation = describe(path, first_line(route.endpoint), {"application/json": {"schema": schema}})
    if route.endpoint is metadata.index:
        operation["requestBody"] = index_body()
    return operation


def describe_infer(path: str) -> Schema:
    """Return the operation of a prediction."""
    operation = describe(path, "Return the probability that each image is a 3.", infer_answers())
    operation["requestBody"] = INFER
    operation["parameters"].append(
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "The size of the JSON, if pixels follow it as bytes; 0 without JSON.",
            "schema": {"type": "integer", "minimum": 0},
        }
    )
    return operation


def describe_call(path: str, messages: Messages) -> Schema:
    """Return the operation of a method of mnist37.v1."""
    method = SERVICE.methods_by_name[path.rpartition("/")[2]]
    answer = messages.refer(method.output_type)
    kind = "application/x-ndjson" if method.server_streaming else "application/json"
    text = f"{method.name} of {SERVICE.full_name}"
    if method.server_streaming:
        text += "; the answer has one object a line"
    operation = describe(path, f"{text}.", {kind: {"schema": answer}})
    kinds = ["application/json", *["application/x-ndjson"] * method.client_streaming]
    body = messages.refer(method.input_type)
    operation["requestBody"] = {
        "required": True,
        "content": {kind: {"schema": body} for kind in kinds},
    }
    operation["parameters"].append(
        {
            "name": TIMEOUT,
            "in": "header",
            "description": "Seconds that the call may take.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        }
    )
    return operation


def describe(path: str, summary: str, content: Schema) -> Schema:
    """Return an operation without a body."""
    return {
        "operationId": re.sub(r"\W+", "_", path.strip("/")),
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ],
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **{status: {"$ref": f"#/components/responses/{status}"} for status in ERRORS},
        },
    }


def first_line(function: Any) -> str:  # noqa: ANN401
    """Return the first line of a function's docstring."""
    return str(function.__doc__).partition("\n")[0]


def refer(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}
