"""Tests of /openapi.json: it is valid and has every route; requests and answers agree with it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mnist37_protos.v1 import mnist37_pb2 as pb
from openapi_spec_validator import validate
from support.local_web import LocalWeb


@pytest.fixture(scope="module")
def document(web: LocalWeb) -> Any:
    return web.get("/openapi.json").json


def check(document: Any, schema: Any, value: object) -> None:
    """Assert that a value agrees with a schema of the document."""
    whole = {**schema, "components": document["components"]}
    Draft202012Validator(whole).validate(value)


def schema_of(document: Any, path: str, method: str) -> Any:
    content = document["paths"][path][method]["responses"]["200"]["content"]
    return next(iter(content.values()))["schema"]


def test_the_document_is_valid(document: Any) -> None:
    validate(document)


def test_every_route_is_there(document: Any, web: LocalWeb) -> None:
    paths = document["paths"]
    methods = pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods
    assert {f"/mnist37.v1.Mnist37Service/{method.name}" for method in methods} <= paths.keys()
    for path, operations in paths.items():
        (method,) = operations
        real = path.format(model="mnist37", version="no-such-version")
        headers = {"X-Timeout-Seconds": "0.2"}  # Follow would not end
        body: object = {} if method == "post" else None
        reply = web.request(method.upper(), real, body, headers)
        for text in (b"NO_SUCH_ROUTE", b"METHOD_NOT_ALLOWED"):
            assert text not in reply.body, path
        other = "GET" if method == "post" else "DELETE"
        assert web.request(other, real).status == 405, path


@pytest.mark.parametrize(
    "path",
    [
        *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{model}", "/v2/models/stats"),
        *("/v2/models/{model}/ready", "/v2/models/{model}/config", "/v2/models/{model}/stats"),
    ],
)
def test_metadata_agree(document: Any, web: LocalWeb, path: str) -> None:
    schema = schema_of(document, path, "get")
    check(document, schema, web.get(path.format(model="mnist37")).json)


@pytest.mark.parametrize(
    ("method", "request_body"),
    [
        ("Initialize", {"seed": "42"}),
        ("Train", {"epochs": 1, "name": "of a test", "learningRate": 0.5}),
        ("GetLoss", {"split": "SPLIT_VALID"}),
        ("GetModel", {}),
        ("ListRuns", {"states": ["RUN_STATE_FINISHED"]}),
        ("ListVersions", {"limit": 2}),
        ("WatchRun", {}),
        ("Predict", {"pixels": base64.b64encode(bytes(784)).decode()}),
    ],
)
def test_calls_agree(document: Any, web: LocalWeb, method: str, request_body: Any) -> None:
    path = f"/mnist37.v1.Mnist37Service/{method}"
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    check(document, body["schema"], request_body)
    for line in web.call(method, request_body).lines:
        check(document, schema_of(document, path, "post"), line)


def test_predictions_and_errors_agree(document: Any, web: LocalWeb) -> None:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784], "data": [9] * 784}
    request: dict[str, Any] = {
        "inputs": [tensor],
        "id": "an id",
        "parameters": {"binary_data_output": False, "start": 0},
        "outputs": [{"name": "probability", "parameters": {"binary_data": False}}],
    }
    path = "/v2/models/{model}/infer"
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    check(document, body["schema"], request)
    answer = web.post("/v2/models/mnist37/infer", request).json
    check(document, schema_of(document, path, "post"), answer)
    index = web.post("/v2/repository/index", {}).json
    check(document, schema_of(document, "/v2/repository/index", "post"), index)
    error = {"$ref": "#/components/schemas/Error"}
    check(document, error, web.post("/v2/models/mnist37/infer", {}).json)
    check(document, error, web.call("Train", {}).json)
