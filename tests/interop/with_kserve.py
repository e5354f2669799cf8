"""KServe's InferenceGRPCClient, unmodified; with_tritonclient.py describes the arguments."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest, InferResponse
from kserve.protocol.grpc import grpc_predict_v2_pb2
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

address, images_file, expected_file, version, _ = sys.argv[1:]
images: NDArray[np.uint8] = np.load(images_file)
expected: NDArray[np.float32] = np.load(expected_file)
MODEL = "mnist37"
logging.disable()  # the client logs each refusal; this script expects refusals


def request(
    values: NDArray[Any], datatype: str, model: str = MODEL, raw: bool = True, output: str = ""
) -> InferRequest:
    tensor = InferInput("pixels", list(values.shape), datatype)
    if raw:
        tensor.set_data_from_numpy(values)
    else:
        tensor.data = values.flatten().tolist()
    outputs = [RequestedOutput(output)] if output else None
    return InferRequest(model, [tensor], request_id="a request", request_outputs=outputs)


async def assert_refused(code: grpc.StatusCode, call: Awaitable[object]) -> None:
    status = None
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = error.code()
    assert status is code


async def main() -> None:
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)

        floats = images.astype(np.float32) / np.float32(255)
        for values, datatype in (
            (images, "UINT8"),
            (images.reshape(-1, 28, 28), "UINT8"),
            (floats, "FP32"),
            (floats.reshape(-1, 28, 28), "FP32"),
        ):
            for raw in (True, False):
                for output in ("", "probability"):
                    infer_request = request(values, datatype, raw=raw, output=output)
                    response: InferResponse = await client.infer(infer_request)
                    # Floats have a separate kernel, whose results differ in the last bits.
                    tolerance = 0 if datatype == "UINT8" else 2e-6
                    probabilities = response.outputs[0].as_numpy()
                    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=tolerance)
                    assert (response.model_name, response.model_version) == (MODEL, version)
                    assert response.id == "a request"

        not_found, invalid = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
        await assert_refused(not_found, client.is_model_ready("mnist38"))
        await assert_refused(not_found, client.infer(request(images, "UINT8", "mnist38")))
        await assert_refused(invalid, client.infer(request(images[:, :783], "UINT8")))
        await assert_refused(invalid, client.infer(request(floats * 2, "FP32", raw=False)))
        await assert_refused(invalid, client.infer(request(images, "UINT8", output="logits")))


asyncio.run(main())
print(f"{grpc_predict_v2_pb2.DESCRIPTOR.name}: {len(images)} images from version {version}")
