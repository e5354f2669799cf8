"""tritonclient[grpc], unmodified: with_tritonclient.py HOST:PORT IMAGES EXPECTED VERSION PROTOCOL.

IMAGES and EXPECTED are .npy files: images (N, 784) of uint8, and their probabilities by VERSION,
the newest version. PROTOCOL is this project's .proto as protoc compiled it.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.grpc import aio, model_config_pb2, service_pb2
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


triton_file, triton_config, mnist37_file = (FileDescriptorProto() for _ in range(3))
service_pb2.DESCRIPTOR.CopyToProto(triton_file)
model_config_pb2.DESCRIPTOR.CopyToProto(triton_config)
mnist37_file.ParseFromString(Path(protocol_file).read_bytes())
assert mnist37_file.package == triton_file.package
assert fields(mnist37_file.message_type) <= fields(
    [*triton_file.message_type, *triton_config.message_type]
)
enums = [
    {(enum.name, value.name, value.number) for enum in file.enum_type for value in enum.value}
    for file in (mnist37_file, triton_config)
]
assert enums[0] <= enums[1]
methods = [
    {
        (m.name, m.input_type, m.output_type, m.client_streaming, m.server_streaming)
        for m in service.method
    }
    for service in (mnist37_file.service[0], triton_file.service[0])
]
assert mnist37_file.service[0].name == triton_file.service[0].name
assert methods[0] <= methods[1]

assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(MODEL)
assert client.is_model_ready(MODEL, version)
server = client.get_server_metadata()
assert server.name == "mnist37"
assert list(server.extensions) == ["model_configuration", "statistics"]

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


# Triton's extensions.

config = client.get_model_config(MODEL).config
assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
    ("pixels", model_config_pb2.TYPE_UINT8, [784])
]
assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
    ("probability", model_config_pb2.TYPE_FP32, [])
]
assert config.max_batch_size >= 16_384
assert not config.model_transaction_policy.decoupled
assert client.get_model_config(MODEL, version, as_json=True)["config"]["name"] == MODEL

(indexed,) = client.get_model_repository_index().models
assert (indexed.name, indexed.version, indexed.state) == (MODEL, version, "READY")
assert_refused("UNIMPLEMENTED", client.load_model, MODEL)
assert_refused("UNIMPLEMENTED", client.unload_model, MODEL)


def statistics(**which: str) -> Any:
    (entry,) = client.get_inference_statistics(**which).model_stats
    return entry


before = statistics()
assert (before.name, before.version) == (MODEL, "1")
answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in range(10):
    client.async_stream_infer(MODEL, inputs, request_id=str(number))
client.async_stream_infer(MODEL, inputs, model_version="newest")
client.async_stream_infer(MODEL, inputs, request_id="last", enable_empty_final_response=True)
client.stop_stream()
for name in (*map(str, range(10)), None, "last"):
    result, error = answers.get(timeout=20)
    if name is None:
        assert "there is no tag 'newest'" in str(error)
        continue
    assert error is None
    assert np.array_equal(result.as_numpy("probability"), expected)
    response = result.get_response()
    assert (response.id, response.model_version) == (name, version)
    assert response.parameters["triton_final_response"].bool_param
assert answers.empty()
after = statistics(model_name=MODEL)
assert after.inference_count - before.inference_count == 11 * len(images)
assert after.execution_count - before.execution_count == 11
assert after.inference_stats.success.count - before.inference_stats.success.count == 11
assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
assert statistics(model_name=MODEL, model_version=version).version == version
assert_refused("NOT_FOUND", client.get_inference_statistics, "mnist38")


async def infer_concurrently() -> None:
    async with aio.InferenceServerClient(address) as client:
        results = await asyncio.gather(*(client.infer(MODEL, inputs) for _ in range(20)))
        for result in results:
            assert np.array_equal(result.as_numpy("probability"), expected)


asyncio.run(infer_concurrently())
client.close()
print(f"{service_pb2.DESCRIPTOR.name}: {len(images)} images from version {version}")
