"""tritonclient[http], unmodified: with_tritonclient_http.py HOST:PORT IMAGES EXPECTED VERSION.

HOST:PORT is of `mnist37 web`; with_tritonclient.py describes the other arguments.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient import http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

address, images_file, expected_file, version, _ = sys.argv[1:]
images: NDArray[np.uint8] = np.load(images_file)
expected: NDArray[np.float32] = np.load(expected_file)
client = triton.InferenceServerClient(address)
MODEL = "mnist37"


def tensor(
    values: NDArray[Any], datatype: str, binary: bool = True, name: str = "pixels"
) -> triton.InferInput:
    infer_input = triton.InferInput(name, list(values.shape), datatype)
    infer_input.set_data_from_numpy(values, binary_data=binary)
    return infer_input


def assert_refused(status: int, call: Callable[..., object], *args: Any) -> None:
    got = "no error"
    try:
        call(*args)
    except InferenceServerException as error:
        got = str(error.status()) if error.message() else "no text"
    assert got == str(status), (got, args)


assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(MODEL)
assert client.is_model_ready(MODEL, version)
assert not client.is_model_ready("mnist38")
assert client.get_server_metadata()["name"] == "mnist37"
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
metadata = client.get_model_metadata(MODEL)
assert metadata["versions"][0] == version
assert metadata["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 784]}]
assert metadata["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]
assert [model["version"] for model in client.get_model_repository_index()] == [version]
config = client.get_model_config(MODEL)
assert config["input"] == [{"name": "pixels", "data_type": "TYPE_UINT8", "dims": [784]}]
assert config["max_batch_size"] > 1_000
before = client.get_inference_statistics(MODEL)["model_stats"][0]
floats = images.astype(np.float32) / np.float32(255)
inputs = [
    (images, "UINT8"),
    (images.reshape(-1, 28, 28), "UINT8"),
    (floats, "FP32"),
    (floats.reshape(-1, 28, 28), "FP32"),
]
for (values, datatype), is_binary, model_version in product(inputs, (True, False), ("", version)):
    for outputs in (
        None,
        [triton.InferRequestedOutput("probability", binary_data=True)],
        [triton.InferRequestedOutput("probability", binary_data=False)],
    ):
        result = client.infer(
            MODEL,
            [tensor(values, datatype, is_binary)],
            model_version,
            outputs,
            request_id="a request",
            priority=1,
            timeout=1_000_000,
        )
        probabilities = result.as_numpy("probability")
        assert probabilities.dtype == np.float32
        # Floats have a separate kernel, whose results differ in the last bits.
        tolerance = 0 if datatype == "UINT8" else 2e-6
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=tolerance)
        response = result.get_response()
        assert (response["model_name"], response["model_version"]) == (MODEL, version)
        assert response["id"] == "a request"

after = client.get_inference_statistics()["model_stats"][0]
assert after["inference_count"] - before["inference_count"] == 48 * len(images)
assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]

good = [tensor(images, "UINT8")]
assert_refused(404, client.get_model_metadata, MODEL, "999999999")
assert_refused(404, client.infer, "mnist38", good)
assert_refused(404, client.infer, MODEL, good, "newest")
assert_refused(400, client.infer, MODEL, [tensor(images, "UINT8", name="image")])
assert_refused(400, client.infer, MODEL, [tensor(images[:, :783], "UINT8")])
assert_refused(400, client.infer, MODEL, [tensor(images[:, :783], "UINT8", False)])
assert_refused(400, client.infer, MODEL, [tensor(images.astype(np.int32), "INT32")])
assert_refused(400, client.infer, MODEL, [tensor(floats * 2, "FP32")])
assert_refused(400, client.infer, MODEL, [tensor(floats * 2, "FP32", False)])
assert_refused(400, client.infer, MODEL, good, "", [triton.InferRequestedOutput("logits")])
with_class_count = [triton.InferRequestedOutput("probability", class_count=2)]
assert_refused(400, client.infer, MODEL, good, "", with_class_count)


async def infer_concurrently() -> None:
    async with aio.InferenceServerClient(address) as client:
        assert await client.is_model_ready(MODEL)
        assert [model["name"] for model in await client.get_model_repository_index()] == [MODEL]
        for binary in (True, False):
            one = [tensor(images[:1], "UINT8", binary)]
            results = await asyncio.gather(*(client.infer(MODEL, one) for _ in range(20)))
            for result in results:
                assert np.array_equal(result.as_numpy("probability"), expected[:1])


asyncio.run(infer_concurrently())
client.close()
print(f"{triton.__name__}: {len(images)} images from version {version}")
