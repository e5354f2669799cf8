"""KServe's InferenceRESTClient, unmodified; with_tritonclient_http.py describes the arguments."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable
from itertools import product
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

address, images_file, expected_file, version, _ = sys.argv[1:]
images: NDArray[np.uint8] = np.load(images_file)
expected: NDArray[np.float32] = np.load(expected_file)
url = f"http://{address}"
MODEL = "mnist37"
logging.disable()  # the client logs each refusal; this script expects refusals


def request(
    values: NDArray[Any], datatype: str, binary: bool = True, outputs: Any = None, **more: Any
) -> InferRequest:
    tensor = InferInput("pixels", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="a request", request_outputs=outputs, **more)


async def assert_refused(status: int, call: Awaitable[object]) -> None:
    got = None
    try:
        await call
    except httpx.HTTPStatusError as error:
        if error.response.json()["error"] in str(error):
            got = error.response.status_code
    assert got == status, got


async def main() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, MODEL)
        assert not await client.is_model_ready(url, "mnist38")

        floats = images.astype(np.float32) / np.float32(255)
        inputs = [
            (images, "UINT8"),
            (images.reshape(-1, 28, 28), "UINT8"),
            (floats, "FP32"),
            (floats.reshape(-1, 28, 28), "FP32"),
        ]
        answers: list[dict[str, Any]] = [
            {},
            {"parameters": {"binary_data_output": True}},
            {"outputs": [RequestedOutput("probability", {"binary_data": True})]},
            {"outputs": [RequestedOutput("probability")]},
        ]
        for (values, datatype), binary, answer in product(inputs, (True, False), answers):
            infer_request = request(values, datatype, binary, **answer)
            response = await client.infer(url, infer_request, MODEL)
            assert isinstance(response, InferResponse)
            # Floats have a separate kernel, whose results differ in the last bits.
            tolerance = 0 if datatype == "UINT8" else 2e-6
            probabilities = response.outputs[0].as_numpy()
            np.testing.assert_allclose(probabilities, expected, rtol=0, atol=tolerance)
            assert response.model_name == MODEL  # the client drops the version
            assert response.id == "a request"

        await assert_refused(404, client.infer(url, request(images, "UINT8"), "mnist38"))
        await assert_refused(400, client.infer(url, request(images[:, :783], "UINT8"), MODEL))
        await assert_refused(400, client.infer(url, request(floats * 2, "FP32", False), MODEL))
        logits = [RequestedOutput("logits")]
        await assert_refused(
            400, client.infer(url, request(images, "UINT8", outputs=logits), MODEL)
        )


asyncio.run(main())
print(f"{InferenceRESTClient.__name__}: {len(images)} images from version {version}")
