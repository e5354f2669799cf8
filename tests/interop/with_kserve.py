"""KServe's InferenceGRPCClient, unmodified; the arguments are those of with_tritonclient.py."""

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
logging.disable()  # it logs each refusal, which are expected here


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


async def refused(code: grpc.StatusCode, call: Awaitable[object]) -> None:
    answered = None
    try:
        await call
    except grpc.aio.AioRpcError as error:
        answered = error.code()
    assert answered is code


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
                    asked = request(values, datatype, raw=raw, output=output)
                    response: InferResponse = await client.infer(asked)
                    # Floats have a kernel of their own, whose last bits are others.
                    tolerance = 0 if datatype == "UINT8" else 2e-6
                    answered = response.outputs[0].as_numpy()
                    np.testing.assert_allclose(answered, expected, rtol=0, atol=tolerance)
                    assert (response.model_name, response.model_version) == (MODEL, version)
                    assert response.id == "a request"

        missing, wrong = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
        await refused(missing, client.is_model_ready("mnist38"))
        await refused(missing, client.infer(request(images, "UINT8", "mnist38")))
        await refused(wrong, client.infer(request(images[:, :783], "UINT8")))
        await refused(wrong, client.infer(request(floats * 2, "FP32", raw=False)))
        await refused(wrong, client.infer(request(images, "UINT8", output="logits")))


asyncio.run(main())
print(f"{grpc_predict_v2_pb2.DESCRIPTOR.name}: {len(images)} images from version {version}")
