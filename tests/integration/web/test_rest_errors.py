"""Tests of requests over HTTP that are wrong: each gets a text that names the field."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from support.local_web import LocalWeb, Reply

INFER = "/v2/models/mnist37/infer"
SIZE = "Inference-Header-Content-Length"
ZEROS = [0] * 784


def tensor(**fields: Any) -> dict[str, Any]:
    valid = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784], "data": ZEROS}
    return {name: value for name, value in {**valid, **fields}.items() if value is not ...}


def body(tensor_fields: Any = None, **fields: Any) -> dict[str, Any]:
    return {"inputs": [tensor(**(tensor_fields or {}))], **fields}


def assert_refused(reply: Reply, status: int, text: str) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"] == "application/json"
    assert text in reply.json["error"]
    assert "Traceback" not in reply.json["error"]


@pytest.mark.parametrize(
    ("tensor_fields", "text"),
    [
        ({"name": "image"}, "inputs: got 'image'; must be pixels"),
        ({"name": ...}, "inputs: got null; must be pixels"),
        ({"datatype": "INT32"}, "pixels.datatype: got 'INT32'; must be UINT8 or FP32"),
        ({"datatype": ...}, "pixels.datatype: missing; must be UINT8 or FP32"),
        ({"shape": ...}, "pixels.shape: missing; must be [N, 784]"),
        ({"shape": [784]}, "pixels.shape: got [784]; must be [N, 784] or [N, 28, 28]"),
        ({"shape": [0, 784], "data": []}, "pixels.shape: got [0, 784]"),
        ({"shape": [-1, 784]}, "pixels.shape: got [-1, 784]"),
        ({"shape": [True, 784]}, "pixels.shape: got [true, 784]"),
        ({"shape": [1.0, 784]}, "pixels.shape: got [1.0, 784]"),
        ({"shape": [1, 28.0, 28]}, "pixels.shape: got [1, 28.0, 28]"),
        ({"shape": ["1", 784]}, "pixels.shape: got ['1', 784]"),
        ({"shape": [[1], 784]}, "pixels.shape: got [a list of 1, 784]"),
        ({"shape": list(range(1000))}, "pixels.shape: got a list of 1,000"),
        ({"shape": 784}, "pixels.shape: got 784"),
        ({"shape": [2**63, 784]}, "pixels.data: got 784 values; must be"),
        ({"shape": [2**64, 784]}, "pixels.shape: got [1.8446744073709552e+19, 784]"),
        ({"shape": [2, 784]}, "pixels.data: got 784 values; must be 1,568 for shape [2, 784]"),
        ({"data": ...}, "pixels.data: missing; must be a list of numbers"),
        ({"data": []}, "pixels.data: got 0 values; must be 784 for shape [1, 784]"),
        ({"data": ZEROS[1:]}, "pixels.data: got 783 values; must be 784"),
        ({"data": "0" * 784}, "pixels.data: got '0000"),
        ({"data": [[0] * 783, [0]]}, "pixels.data: got a list of 2; must be of 1 for shape"),
        ({"data": [ZEROS, ZEROS]}, "pixels.data: got a list of 2; must be of 1"),
        ({"data": [[[0] * 784]]}, "pixels.data: got a list of 1; must be of 784"),
        ({"data": [ZEROS[1:]], "shape": [1, 784]}, "pixels.data: got a list of 783"),
        (
            {"data": [[ZEROS[:28]] * 28], "shape": [1, 784]},
            "pixels.data: got a list of 28; must be of 784",
        ),
        (
            {"data": [[*[[0] * 28] * 27, 5]], "shape": [1, 28, 28]},
            "pixels.data: got values among lists; must have the form [1, 28, 28]",
        ),
        ({"data": [*ZEROS[1:], 256]}, "got 256 for pixel 783 of image 0; must be a whole number"),
        ({"data": [*ZEROS[1:], -1]}, "pixels.data: got -1 for pixel 783 of image 0"),
        ({"data": [*ZEROS[1:], 2**64]}, "pixels.data: got 1.8446744073709552e+19 for pixel 783"),
        ({"data": [True, *ZEROS[1:]]}, "pixels.data: got true for pixel 0 of image 0"),
        ({"data": [0.5, *ZEROS[1:]]}, "pixels.data: got 0.5 for pixel 0 of image 0"),
        ({"data": [None, *ZEROS[1:]]}, "pixels.data: got null for pixel 0 of image 0"),
        ({"data": ["1", *ZEROS[1:]]}, "pixels.data: got '1' for pixel 0 of image 0"),
        ({"data": [{}, *ZEROS[1:]]}, "pixels.data: got an object of 0 for pixel 0 of image 0"),
        ({"data": [0, [0], *ZEROS[2:]]}, "pixels.data: got a list of 1 for pixel 1 of image 0"),
        (
            {"shape": [2, 784], "data": [ZEROS, [*ZEROS[1:], 300]]},
            "pixels.data: got 300 for pixel 783 of image 1",
        ),
        ({"datatype": "FP32", "data": [True, *ZEROS[1:]]}, "pixels.data: got true for pixel 0"),
        ({"datatype": "FP32", "data": ["1", *ZEROS[1:]]}, "pixels.data: got '1' for pixel 0"),
        ({"datatype": "FP32", "data": [None, *ZEROS[1:]]}, "pixels.data: got null for pixel 0"),
        ({"datatype": "FP32", "data": [1.5, *ZEROS[1:]]}, "pixels: got 1.5 for pixel 0 of image 0"),
        ({"datatype": "FP32", "data": [-1, *ZEROS[1:]]}, "pixels: got -1 for pixel 0 of image 0"),
        ({"datatype": "FP32", "data": [1e300, *ZEROS[1:]]}, "pixels: got inf for pixel 0"),
        ({"dtype": "UINT8"}, "pixels.'dtype': unknown; must be name, shape, datatype"),
        ({"parameters": []}, "pixels.parameters: got a list of 0; must be an object"),
        ({"parameters": {"a": None}}, "pixels.parameters.a: got null; must be a text"),
        ({"parameters": {"a": {}}}, "pixels.parameters.a: got an object of 0; must be a text"),
        ({"parameters": {"sequence_id": 1}}, "pixels.parameters: got sequence_id"),
        ({"parameters": {"binary_data_size": 784}}, "pixels.data: there is binary_data_size too"),
        (
            {"parameters": {"binary_data_size": 784}, "data": ...},
            "binary_data_size: the header Inference-Header-Content-Length is missing",
        ),
    ],
)
def test_a_wrong_tensor(web: LocalWeb, tensor_fields: dict[str, Any], text: str) -> None:
    assert_refused(web.post(INFER, body(tensor_fields)), 400, text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "inputs: missing; must be a list of one object, pixels"),
        ({"inputs": {}}, "inputs: got an object of 0"),
        ({"inputs": []}, "inputs: got a list of 0; must be a list of one object"),
        ({"inputs": [tensor(), tensor()]}, "inputs: got a list of 2; must be a list of one"),
        ({"inputs": ["pixels"]}, "inputs: got a list of 1; must be a list of one object"),
        (body(output=[]), "'output': unknown; must be id, parameters, inputs, outputs"),
        (body(id=7), "id: got 7; must be a text"),
        (body(parameters=[]), "parameters: got a list of 0; must be an object"),
        (body(parameters={"binary_data_output": 1}), "parameters.binary_data_output: got 1; must"),
        (body(parameters={str(i): 1 for i in range(65)}), "parameters: got an object of 65"),
        (body(parameters={"sequence_id": 1}), "parameters: got sequence_id; there are no"),
        (body(parameters={"start": "x"}), "parameters.start: got 'x'; must be an integer"),
        (body(outputs={}), "outputs: got an object of 0; must be a list"),
        (body(outputs=[{}]), "outputs: got an object of 0; must be an object with a name"),
        (body(outputs=[{"name": "logits"}]), "outputs: got 'logits'; must be probability"),
        (
            body(outputs=[{"name": "probability", "parameters": {"classification": 1}}]),
            "probability.parameters: got classification; there is no class_count here",
        ),
        (
            body(outputs=[{"name": "probability", "parameters": {"binary_data": "yes"}}]),
            "probability.parameters.binary_data: got 'yes'; must be true or false",
        ),
        (body(outputs=[{"name": "probability", "data": 1}]), "outputs.'data': unknown"),
    ],
)
def test_a_wrong_request(web: LocalWeb, content: dict[str, Any], text: str) -> None:
    assert_refused(web.post(INFER, content), 400, text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b'{"inputs":[NaN]}', "the body is not JSON"),
        (b'{"inputs":[1e400]}', "the body is not JSON: number is infinity"),
        (b'{"inputs":[Infinity]}', "the body is not JSON"),
        (b'{"inputs":' + b"[" * 100_000, "the body is not JSON"),
        (b'{"id":"a","id":"b",' + json.dumps(body()).encode()[1:], "has a name twice"),
        (b'{"id":"a:b:c","id":"d",' + json.dumps(body()).encode()[1:], "has a name twice"),
        (json.dumps(body()).replace('"data"', '"data":[],"data"').encode(), "has a name twice"),
        (json.dumps(body(parameters={"a": 1})).replace('"a"', '"a":2,"a"').encode(), "twice"),
        (b"\xff", "the body is not JSON"),
    ],
)
def test_no_json(web: LocalWeb, text: bytes, error: str) -> None:
    assert_refused(web.post(INFER, text), 400, error)


def test_colons_in_texts_are_no_names(web: LocalWeb) -> None:
    identifier = 'a:"b\\:\\"'
    reply = web.post(INFER, body(id=identifier, parameters={"a:b": ":"}))
    assert reply.json["id"] == identifier


HEAD = json.dumps(body({"data": ..., "parameters": {"binary_data_size": 784}})).encode()


@pytest.mark.parametrize(
    ("size", "content", "status", "text"),
    [
        ("x", HEAD, 400, "Inference-Header-Content-Length: got 'x'; must be a number of bytes"),
        ("-1", HEAD, 400, "Inference-Header-Content-Length: got '-1'"),
        ("\xb2", HEAD, 400, "Inference-Header-Content-Length: got '²'"),
        ("9" * 5000, HEAD, 400, "Inference-Header-Content-Length: got '999"),
        ("0" * 20 + "9" * 5000, HEAD, 400, "Inference-Header-Content-Length: got '000"),
        ("0" * 20 + "9" * 9, HEAD, 400, "Inference-Header-Content-Length: got '000"),
        (str(len(HEAD) + 1), HEAD, 400, "up to that of the body"),
        (str(len(HEAD)), HEAD, 400, "got 784, but 0 bytes are behind the JSON"),
        (str(len(HEAD)), HEAD + bytes(783), 400, "got 784, but 783 bytes are behind the JSON"),
        (str(len(HEAD)), HEAD + bytes(785), 400, "got 784, but 785 bytes are behind the JSON"),
        ("0", bytes(783), 400, "the body has 783 bytes; without JSON it must be images of 784"),
        ("0", b"", 400, "the body has 0 bytes"),
        ("5", HEAD, 400, "the body is not JSON"),
    ],
)
def test_wrong_bytes(web: LocalWeb, size: str, content: bytes, status: int, text: str) -> None:
    assert_refused(web.post(INFER, content, headers={SIZE: size}), status, text)


@pytest.mark.parametrize("size", [783, 785, -784, 2**62, True, "784", None, 784.0])
def test_a_wrong_binary_data_size(web: LocalWeb, size: Any) -> None:
    head = json.dumps(body({"data": ..., "parameters": {"binary_data_size": size}})).encode()
    reply = web.post(INFER, head + bytes(784), headers={SIZE: str(len(head))})
    assert_refused(reply, 400, "pixels.parameters.binary_data_size: got ")


def test_bytes_that_nothing_announces(web: LocalWeb) -> None:
    head = json.dumps(body()).encode()
    reply = web.post(INFER, head + b"x", headers={SIZE: str(len(head))})
    assert_refused(reply, 400, "the body has 1 bytes behind its JSON; pixels.parameters must have")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/v2/models/mnist38/infer", 404, "model: there is no 'mnist38' here"),
        ("POST", "/v2/models/mnist37/versions/999999/infer", 404, "999999"),
        ("POST", "/v2/models/mnist37/versions/no such/infer", 404, "no such"),
        ("GET", "/v2/models/mnist38", 404, "there is no 'mnist38' here"),
        ("GET", "/v2/models/mnist38/ready", 404, "there is no 'mnist38' here"),
        ("GET", "/v2/models/mnist38/config", 404, "there is no 'mnist38' here"),
        ("GET", "/v2/models/mnist38/stats", 404, "there is no 'mnist38' here"),
        ("GET", "/v2/models/mnist37/versions/999999", 404, "999999 is not retained"),
        ("GET", "/v2/models/mnist37/versions/999999/ready", 404, "999999 is not retained"),
        ("GET", "/v2/nothing", 404, "GET '/v2/nothing': not found"),
        ("POST", "/v2/nothing", 404, "POST '/v2/nothing': not found"),
        ("GET", "/v2/health/live/", 404, "not found"),
        ("GET", INFER, 405, "must be POST"),
        ("DELETE", INFER, 405, "must be POST"),
        ("POST", "/v2/models/mnist37", 405, "must be"),
        ("PUT", "/v2/health/live", 405, "must be"),
        ("GET", "/v2/repository/index", 405, "must be POST"),
    ],
)
def test_a_wrong_route(web: LocalWeb, method: str, path: str, status: int, text: str) -> None:
    content = body() if method == "POST" else None
    reply = web.request(method, path.replace(" ", "%20"), content)
    assert_refused(reply, status, text)
    assert ("Allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, True),
        ({"Content-Type": "application/octet-stream"}, True),
        ({"Content-Type": "text/plain"}, False),
        ({"Content-Type": "multipart/form-data"}, False),
        ({"Content-Type": "application/x-www-form-urlencoded"}, False),
        ({"Content-Type": "application/x-ndjson"}, False),
        ({"Content-Type": ""}, False),
        ({}, True),  # as tritonclient.http, which is no browser
        ({"User-Agent": "python/gevent-http-client-2.6.1"}, True),
        ({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_a_type_that_a_foreign_page_could_send(
    web: LocalWeb, headers: dict[str, str], accepted: bool
) -> None:

    connection = http.client.HTTPConnection(web.address, timeout=20)
    connection.request("POST", INFER, json.dumps(body()), headers)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    if accepted:
        assert response.status == 200, content
    elif "Origin" in headers:
        assert (response.status, content["reason"]) == (403, "ORIGIN_FOREIGN")
    else:
        assert (response.status, content["reason"]) == (415, "CONTENT_TYPE")


def test_the_pages_own_origin_needs_a_type_too(web: LocalWeb) -> None:
    headers = {"Content-Type": "", "Origin": web.url}
    assert web.post(INFER, body(), headers=headers).status == 415


@pytest.mark.parametrize(
    "path", [INFER, "/v2/repository/index", "/mnist37.v1.Mnist37Service/GetModel"]
)
def test_a_compressed_body_is_refused(web: LocalWeb, path: str) -> None:
    reply = web.post(path, b"{}", headers={"Content-Encoding": "gzip"})
    assert_refused(reply, 415, "Content-Encoding: got 'gzip'; must be left out")


def test_a_value_of_the_page_is_shortened_between_characters(web: LocalWeb) -> None:
    fields = json.dumps({"epochs": "é" * 100}, ensure_ascii=False).encode()
    reply = web.post("/page/train", fields, headers={"Origin": web.url})
    assert_refused(reply, 400, f'epochs: got "{"é" * 63}; must be a whole number')


@pytest.mark.parametrize(
    ("route", "fields", "text"),
    [
        ("train", b"{", "the body is not JSON"),
        ("train", b"[]", "the body is not a JSON object"),
        ("step", {"rate": 1}, "'rate': unknown; must be learning_rate"),
        ("stop", {"run": 1}, "'run': unknown; must be left out"),
    ],
)
def test_a_route_of_the_page_takes_its_fields_alone(
    web: LocalWeb, route: str, fields: Any, text: str
) -> None:
    assert_refused(web.post(f"/page/{route}", fields, headers={"Origin": web.url}), 400, text)


def test_the_index_takes_its_two_fields(web: LocalWeb) -> None:
    index = "/v2/repository/index"
    assert web.post(index, {"ready": True}).json[0]["state"] == "READY"
    assert_refused(web.post(index, {"ready": 1}), 400, "ready: got 1; must be true or false")
    assert_refused(web.post(index, {"read": True}), 400, "'read': unknown; must be ready")
    assert_refused(web.post(index, {"repository_name": 1}), 400, "repository_name: got 1")
    assert_refused(web.post(index, {"repository_name": "x"}), 404, "repository_name")
    assert_refused(web.post(index, b"x" * 2000), 413, "must be at most 1,024 bytes")
