"""tritonclient[grpc], unmodified: with_tritonclient.py HOST:PORT IMAGES EXPECTED VERSION PROTOCOL.

IMAGES and EXPECTED are .npy files: images (N, 784) of uint8, and what the newest version, that one,
says of them. PROTOCOL is our .proto as protoc compiled it.
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
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def refused(code: str, call: Callable[..., object], *args: Any) -> None:
    answered = "an answer"
    try:
        call(*args)
    except InferenceServerException as error:
        answered = str(error.status())
    assert answered == f"StatusCode.{code}", args


def fields(messages: Any, within: str = "") -> set[tuple[object, ...]]:
    """Each message's fields, as far as the wire and the callers see them."""
    found: set[tuple[object, ...]] = set()
    for message in messages:
        name = f"{within}.{message.name}"
        found |= {(name, f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        found |= fields(message.nested_type, name)
    return found


theirs, ours = FileDescriptorProto(), FileDescriptorProto()
service_pb2.DESCRIPTOR.CopyToProto(theirs)
ours.ParseFromString(Path(protocol_file).read_bytes())
assert ours.package == theirs.package
assert fields(ours.message_type) <= fields(theirs.message_type)
methods = [
    {(m.name, m.input_type, m.output_type) for m in service.method}
    for service in (ours.service[0], theirs.service[0])
]
assert ours.service[0].name == theirs.service[0].name
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
for given in (
    tensor(images, "UINT8"),
    tensor(images.reshape(-1, 28, 28), "UINT8"),
    tensor(floats, "FP32"),
    tensor(floats.reshape(-1, 28, 28), "FP32"),
):
    for outputs in (None, [triton.InferRequestedOutput("probability")]):
        for asked in ("", version):
            result = client.infer(MODEL, [given], asked, outputs, request_id="a request")
            answered = result.as_numpy("probability")
            assert answered.dtype == np.float32
            # Floats have a kernel of their own, whose last bits are others.
            tolerance = 0 if given.datatype() == "UINT8" else 2e-6
            np.testing.assert_allclose(answered, expected, rtol=0, atol=tolerance)
            response = result.get_response()
            assert (response.model_name, response.model_version) == (MODEL, version)
            assert response.id == "a request"

good = [tensor(images, "UINT8")]
refused("NOT_FOUND", client.is_model_ready, "mnist38")
refused("NOT_FOUND", client.get_model_metadata, MODEL, "999999999")
refused("NOT_FOUND", client.infer, "mnist38", good)
refused("NOT_FOUND", client.infer, MODEL, good, "newest")
refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images, "UINT8", "image")])
refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images[:, :783], "UINT8")])
refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(images.astype(np.int32), "INT32")])
refused("INVALID_ARGUMENT", client.infer, MODEL, [tensor(floats * 2, "FP32")])
logits = [triton.InferRequestedOutput("logits")]
refused("INVALID_ARGUMENT", client.infer, MODEL, good, "", logits)


async def asynchronously() -> None:
    async with aio.InferenceServerClient(address) as client:
        results = await asyncio.gather(*(client.infer(MODEL, good) for _ in range(20)))
        for result in results:
            assert np.array_equal(result.as_numpy("probability"), expected)


asyncio.run(asynchronously())
client.close()
print(f"{service_pb2.DESCRIPTOR.name}: {len(images)} images from version {version}")
