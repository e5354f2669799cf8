"""Tests of predictions over HTTP: their bits are gRPC's, in JSON and as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_protos.inference import open_inference_pb2_grpc
from numpy.typing import NDArray
from support.local_web import LocalWeb, Reply

IMAGES = validation_images()[0][::29].reshape(-1, 784)  # 71 of them
FLOATS = IMAGES.astype(np.float32) / np.float32(255)
INFER = "/v2/models/mnist37/infer"
SIZE = "Inference-Header-Content-Length"


@pytest.fixture
def trained(client: Client) -> Client:
    client.train(epochs=2).wait()
    client.predict(IMAGES[0])  # behind a front, a read by another caller is no older from here on
    return client


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def by_grpc(stub: Any, values: NDArray[Any]) -> tuple[list[float], str]:
    tensor: Any = {"name": "pixels", "datatype": datatype(values), "shape": values.shape}
    request = pb.ModelInferRequest(
        model_name="mnist37", inputs=[tensor], raw_input_contents=[values.tobytes()]
    )
    answer = stub.ModelInfer(request, timeout=20)
    return np.frombuffer(answer.raw_output_contents[0], "<f4").tolist(), answer.model_version


def datatype(values: NDArray[Any]) -> str:
    return "UINT8" if values.dtype == np.uint8 else "FP32"


def tensor(values: NDArray[Any], **fields: Any) -> dict[str, Any]:
    shape = list(values.shape)
    return {"name": "pixels", "datatype": datatype(values), "shape": shape, **fields}


def infer(web: LocalWeb, values: NDArray[Any], how: str, path: str = INFER, **fields: Any) -> Reply:
    """Send images as flat or nested JSON or as bytes; `fields` are further ones of the request."""
    if how == "binary":
        parameters = {"binary_data_size": values.nbytes}
        head = json.dumps({"inputs": [tensor(values, parameters=parameters)], **fields}).encode()
        return web.post(path, head + values.tobytes(), headers={SIZE: str(len(head))})
    data = (values if how == "nested" else values.ravel()).tolist()
    return web.post(path, {"inputs": [tensor(values, data=data)], **fields})


def probabilities(reply: Reply) -> list[float]:
    """Return the probabilities of a reply, after a check of its form."""
    assert reply.status == 200, reply.body
    size = reply.headers[SIZE]
    content = json.loads(reply.body if size is None else reply.body[: int(size)])
    (output,) = content["outputs"]
    assert (content["model_name"], output["name"]) == ("mnist37", "probability")
    assert output["datatype"] == "FP32"
    if size is None:
        assert reply.headers["Content-Type"] == "application/json"
        found = np.array(output["data"], np.float32)
    else:
        assert reply.headers["Content-Type"] == "application/octet-stream"
        tail = reply.body[int(size) :]
        assert output["parameters"] == {"binary_data_size": len(tail)}
        found = np.frombuffer(tail, "<f4")
    assert output["shape"] == [len(found)]
    values: list[float] = found.tolist()
    return values


@pytest.mark.parametrize("how", ["flat", "nested", "binary"])
@pytest.mark.parametrize("shape", [(-1, 784), (-1, 28, 28)], ids=str)
@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("pixels", [IMAGES, FLOATS], ids=["UINT8", "FP32"])
def test_the_bits_are_grpcs(
    trained: Client,
    web: LocalWeb,
    stub: Any,
    pixels: NDArray[Any],
    count: int,
    shape: tuple[int, ...],
    how: str,
) -> None:
    values = pixels[:count].reshape(shape)
    expected, version = by_grpc(stub, values)
    reply = infer(web, values, how)
    assert probabilities(reply) == expected
    assert reply.json["model_version"] == version
    numbered = infer(web, values, how, f"/v2/models/mnist37/versions/{version}/infer")
    assert probabilities(numbered) == expected
    if pixels is IMAGES:
        assert expected == trained.predict(values).probabilities.tolist()


@pytest.mark.usefixtures("trained")
def test_images_of_zeros_and_ones_are_predicted(web: LocalWeb, stub: Any) -> None:
    # The client's own `predict` refuses them, because 1 may mean ink.
    for value in (0, 1):
        for count in (1, 3):
            values = np.full((count, 784), value, np.uint8)
            for how in ("flat", "binary"):
                assert probabilities(infer(web, values, how)) == by_grpc(stub, values)[0]


def test_a_version_may_be_a_number_or_a_tag(trained: Client, web: LocalWeb) -> None:
    first = trained.get_model()
    trained.tag_version("monday")
    trained.step()
    expected = trained.predict(IMAGES, version=first.version).probabilities.tolist()
    for version in (str(first.version), "monday", f"best@{trained.runs(limit=1)[0].run}"):
        reply = infer(web, IMAGES, "flat", f"/v2/models/mnist37/versions/{version}/infer")
        assert reply.json["model_version"] == str(first.version)
        assert probabilities(reply) == expected
    assert probabilities(infer(web, IMAGES, "flat")) != expected


BINARY = {"parameters": {"binary_data": True}}
JSON = {"parameters": {"binary_data": False}}


@pytest.mark.parametrize(
    ("default", "of_output", "is_binary"),
    [
        (None, None, False),
        (True, None, True),
        (False, None, False),
        (None, True, True),
        (True, False, False),
        (False, True, True),
    ],
)
@pytest.mark.parametrize("how", ["flat", "binary"])
def test_the_answer_is_binary_if_the_request_says_so(
    client: Client,
    web: LocalWeb,
    how: str,
    default: bool | None,
    of_output: bool | None,
    is_binary: bool,
) -> None:
    fields: dict[str, Any] = {"id": "an id"}
    if default is not None:
        fields["parameters"] = {"binary_data_output": default}
    if of_output is not None:
        parameters = {"binary_data": of_output}
        fields["outputs"] = [{"name": "probability", "parameters": parameters}]
    reply = infer(web, IMAGES[:2], how, **fields)
    assert probabilities(reply) == client.predict(IMAGES[:2]).probabilities.tolist()
    assert (SIZE in reply.headers) == is_binary
    text = reply.body[: int(reply.headers[SIZE])] if is_binary else reply.body
    assert json.loads(text)["id"] == "an id"


def test_images_need_no_json(client: Client, web: LocalWeb) -> None:
    headers = {SIZE: "0", "Content-Type": "application/octet-stream"}
    reply = web.post(INFER, IMAGES[:3].tobytes(), headers=headers)
    assert probabilities(reply) == client.predict(IMAGES[:3]).probabilities.tolist()


def test_parameters_reach_the_server(client: Client, web: LocalWeb) -> None:
    start = infer(web, IMAGES[:1], "flat", parameters={"start": 0}).json["parameters"]["start"]
    assert start != 0
    fields = {"start": start, "min_version": client.get_model().version, "priority": 1}
    assert infer(web, IMAGES[:1], "flat", parameters=fields).json["parameters"] == {"start": start}
    lost = infer(web, IMAGES[:1], "flat", parameters={"start": start ^ 1})
    assert (lost.status, lost.json["reason"]) == (400, "HISTORY_LOST")


def test_concurrent_requests_get_their_own_answers(client: Client, web: LocalWeb) -> None:
    expected = client.predict(IMAGES).probabilities.tolist()
    with ThreadPoolExecutor(32) as pool:
        replies = pool.map(lambda i: infer(web, IMAGES[i : i + 1], "flat", id=str(i)), range(71))
        for number, reply in enumerate(replies):
            assert probabilities(reply) == [expected[number]]
            assert reply.json["id"] == str(number)


def test_a_restored_history_is_read_again() -> None:
    # The server is replaced by another one, at the same address, with an older version.
    with LocalServer("--device", "cpu") as server, LocalWeb(server.address) as other:
        with Client(server.address) as owner:
            owner.train(epochs=1).wait()
        assert infer(other, IMAGES[:1], "flat").json["model_version"] == "49"
        server.stop()
        with LocalServer("--device", "cpu", "--address", server.address):
            reply = infer(other, IMAGES[:1], "flat")
            assert reply.status == 200, reply.body
            assert reply.json["model_version"] == "0"
