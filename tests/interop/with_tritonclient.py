"""tritonclient[grpc], unmodified: with_tritonclient.py HOST:PORT IMAGES EXPECTED VERSION PROTOCOL.

IMAGES and EXPECTED are .npy files: images (N, 784) of uint8, and their probabilities by VERSION,
the newest version. PROTOCOL is this project's .proto as protoc compiled it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.grpc import aio, service_pb2
from tritonclient.utils import InferenceServerException

address, images_file, expected_file, version, protocol_file = sys.argv[1:]
images: NDArray[np.uint8] = np.load(images_file)
expected: NDArray[np.float32] = np.load(expected_file)
client = triton.InferenceServerClient(address)
MODEL = "mnist37"


def tensor(values: NDArray[Any], datatype: str, name: str = "pixels") -> triton.InferInput:
    infer_input = triton.InferInput(name, list(values.shape), datatype)
    infer_input.set_data_from_numpy(values)
    return infer_input


def assert_refused(code: str, call: Callable[..., object], *args: Any) -> None:
    status = "OK"
    try:
        call(*args)
    except InferenceServerException as error:
        status = str(error.status())
    assert status == f"StatusCode.{code}", args


def fields(messages: Any, parent: str = "") -> set[tuple[object, ...]]:
    """Return the fields of all messages, with the properties that the wire and callers see."""
    result: set[tuple[object, ...]] = set()
    for message in messages:
        name = f"{parent}.{message.name}"
        result |= {(name, f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        result |= fields(message.nested_type, name)
    return result


triton_file, mnist37_file = FileDescriptorProto(), FileDescriptorProto()
service_pb2.DESCRIPTOR.CopyToProto(triton_file)
mnist37_file.ParseFromString(Path(protocol_file).read_bytes())
assert mnist37_file.package == triton_file.package
assert fields(mnist37_file.message_type) <= fields(triton_file.message_type)
methods = [
    {(m.name, m.input_type, m.output_type) for m in service.method}
    for service in (mnist37_file.service[0], triton_file.service[0])
]
assert mnist37_file.service[0].name == triton_file.service[0].name
assert methods[0] <= methods[1]

assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(MODEL)
assert client.is_model_ready(MODEL, version)
assert client.get_server_metadata().name == "mnist37"

metadata = client.get_model_metadata(MODEL)
assert metadata.versions[0] == version
assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [
    ("pixels", "UINT8", [-1, 784])
]
assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
    ("probability", "FP32", [-1])
]

floats = images.astype(np.float32) / np.float32(255)
for infer_input in (
    tensor(images, "UINT8"),
    tensor(images.reshape(-1, 28, 28), "UINT8"),
    tensor(floats, "FP32"),
    tensor(floats.reshape(-1, 28, 28), "FP32"),
):
    for outputs in (None, [triton.InferRequestedOutput("probability")]):
        for model_version in ("", version):
            result = client.infer(
                MODEL, [infer_input], model_version, outputs, request_id="a request"
            )
            probabilities = result.as_numpy("probability")
            assert probabilities.dtype == np.float32
            # Floats have a separate kernel, whose results differ in the last bits.
            tolerance = 0 if infer_input.datatype() == "UINT8" else 2e-6
            np.testing.assert_allclose(probabilities, expected, rtol=0, atol=tolerance)
            response = result.get_response()
            assert (response.model_name, response.model_version) == (MODEL, version)
            assert response.id == "a request"

inputs = [tensor(images, "UINT8")]
assert_refused("NOT_FOUND", client.is_model_ready, "mnist38")
assert_refused("NOT_FOUND", client.get_model_metadata, MODEL, "999999999")
assert_refused("NOT_FOUND", client.infer, "mnist38", inputs)
assert_refused("NOT_FOUND", client.infer, MODEL, inputs, "newest")
assert_refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images, "UINT8", "image")])
assert_refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images[:, :783], "UINT8")])
assert_refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images.astype(np.int32), "INT32")])
assert_refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(floats * 2, "FP32")])
logits = [triton.InferRequestedOutput("logits")]
assert_refused("INVALID_ARGUMENT", client.infer, MODEL, inputs, "", logits)


async def infer_concurrently() -> None:
    async with aio.InferenceServerClient(address) as client:
        results = await asyncio.gather(*(client.infer(MODEL, inputs) for _ in range(20)))
        for result in results:
            assert np.array_equal(result.as_numpy("probability"), expected)


asyncio.run(infer_concurrently())
client.close()
print(f"{service_pb2.DESCRIPTOR.name}: {len(images)} images from version {version}")
