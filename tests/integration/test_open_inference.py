"""Tests of the Open Inference Protocol: results equal to Predict's, and clear refusals.

tests/interop has the tests with other projects' clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from typing import Any, cast

import grpc
import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_protos.inference import open_inference_pb2_grpc
from mnist37_server.services.tensors import REFUSED_PARAMETERS
from numpy.typing import NDArray

IMAGES = validation_images()[0][::29].reshape(-1, 784)  # 71 of them
FLOATS = IMAGES.astype(np.float32) / np.float32(255)
TIMEOUT = 20
NOT_FOUND, INVALID_ARGUMENT = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def infer(values: NDArray[Any], *, typed: bool = False, **others: Any) -> pb.ModelInferRequest:
    """Make a valid request of images: UINT8 or FP32 by their dtype, with their shape."""
    datatype = "UINT8" if values.dtype == np.uint8 else "FP32"
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype=datatype, shape=values.shape
    )
    request = pb.ModelInferRequest(model_name="mnist37", inputs=[tensor], **others)
    if typed:
        contents = request.inputs[0].contents
        field = contents.uint_contents if datatype == "UINT8" else contents.fp32_contents
        field.extend(values.flatten().tolist())
    else:
        request.raw_input_contents.append(values.tobytes())
    return request


def probabilities(response: pb.ModelInferResponse) -> list[float]:
    """Return a response's probabilities, after checking that the response is well-formed."""
    (output,), (raw,) = response.outputs, response.raw_output_contents
    assert (output.name, output.datatype) == ("probability", "FP32")
    assert not output.HasField("contents")
    found: list[float] = np.frombuffer(raw, "<f4").tolist()
    assert list(output.shape) == [len(found)]
    return found


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("shape", [(-1, 784), (-1, 28, 28)], ids=str)
@pytest.mark.parametrize("images", [IMAGES, FLOATS], ids=["UINT8", "FP32"])
def test_an_image_has_one_probability_in_all_forms_of_a_request(
    client: Client, stub: Any, images: NDArray[Any], shape: tuple[int, ...], typed: bool
) -> None:
    expected = client.predict(IMAGES)
    for part in (slice(None), slice(0, 1), slice(5, 70)):
        request = infer(images[part].reshape(shape), typed=typed, id="mine")
        response = stub.ModelInfer(request, timeout=TIMEOUT)
        found = probabilities(response)
        if images is IMAGES:
            assert found == expected.probabilities[part].tolist()
        else:
            np.testing.assert_allclose(found, expected.probabilities[part], atol=2e-6)
        assert (response.model_name, response.id) == ("mnist37", "mine")
        assert response.model_version == str(expected.version)


def test_floats_are_not_rounded_to_bytes(client: Client, stub: Any) -> None:
    random = np.random.default_rng(3)
    images = (
        random.random((100, 784), np.float32) * np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    )
    images[0] = 0.4 / 255  # rounds to 0
    model = client.get_model()
    scores = images.astype(np.float64) @ model.weights.astype(np.float64) + model.bias
    found = probabilities(stub.ModelInfer(infer(images), timeout=TIMEOUT))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-scores)), atol=5e-6)
    assert found[0] != client.predict(np.zeros((1, 784), np.uint8)).probabilities[0]


def test_a_retained_version_predicts(client: Client, stub: Any) -> None:
    versions = [progress.version for progress in client.train(epochs=3)]
    for version in versions:
        expected = client.predict(IMAGES, version=version)
        request = infer(IMAGES, model_version=str(version))
        response = stub.ModelInfer(request, timeout=TIMEOUT)
        assert response.model_version == str(version)
        assert probabilities(response) == expected.probabilities.tolist()
        ready = pb.ModelReadyRequest(name="mnist37", version=str(version))
        assert stub.ModelReady(ready, timeout=TIMEOUT).ready
    assert stub.ModelInfer(infer(IMAGES), timeout=TIMEOUT).model_version == str(versions[-1])


def test_predictions_are_of_the_live_model_during_a_run(client: Client, stub: Any) -> None:
    seen = []
    with client.train(epochs=1_000_000) as run:
        next(run)
        for _ in range(15):
            seen.append(stub.ModelInfer(infer(IMAGES), timeout=TIMEOUT))
            next(run)
    versions = [int(response.model_version) for response in seen]
    assert versions == sorted(versions)
    assert len(set(versions)) > 1
    for response in seen:
        expected = client.predict(IMAGES, version=int(response.model_version))
        assert probabilities(response) == expected.probabilities.tolist()


def test_metadata_and_readiness(client: Client, stub: Any) -> None:
    newest = client.train(epochs=2).wait().version
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="mnist37"), timeout=TIMEOUT).ready
    server = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT)
    assert (server.name, server.version) == ("mnist37", installed_version("mnist37"))
    model = stub.ModelMetadata(pb.ModelMetadataRequest(name="mnist37"), timeout=TIMEOUT)
    assert (model.name, model.platform) == ("mnist37", "pytorch")
    assert list(model.versions) == [str(kept.version) for kept in client.versions()]
    assert model.versions[0] == str(newest)
    tensors = [*model.inputs, *model.outputs]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors] == [
        ("pixels", "UINT8", [-1, 784]),
        ("probability", "FP32", [-1]),
    ]


def test_outputs_and_parameters_may_be_named(stub: Any) -> None:
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="probability")
    parameter = pb.InferParameter(string_param="whatever")
    request = infer(IMAGES, outputs=[output], parameters={"priority": parameter})
    assert probabilities(stub.ModelInfer(request, timeout=TIMEOUT)) == probabilities(
        stub.ModelInfer(infer(IMAGES), timeout=TIMEOUT)
    )


# --- Refusals


def changed_request(
    change: Callable[[pb.ModelInferRequest], object], **options: Any
) -> pb.ModelInferRequest:
    request = infer(**{"values": IMAGES[:2], **options})
    change(request)
    return request


def with_value(value: float, *, typed: bool = False) -> pb.ModelInferRequest:
    """Make a request of two images whose 1,000th pixel has a value."""
    values = FLOATS[:2].copy()
    values[1, 216] = value
    return infer(values, typed=typed)


BadRequest = tuple[str, grpc.StatusCode, pb.ModelInferRequest, tuple[str, ...]]


def bad_versions() -> Iterator[BadRequest]:
    """Yield requests for versions and tags that do not exist, as `bad_requests` does."""
    said: tuple[str, ...]
    for tag in ("newest", "-1", "1.0", "1e2", "best@999999", "x" * 128):
        said = (f"tag: there is no tag {tag!r}", "versions are decimal numbers")
        yield f"tag {tag[:9]}", NOT_FOUND, infer(IMAGES, model_version=tag), said
    for version in (" 1", "\u0663", "9" * 21, "9" * 5000, "x" * 129, "best@01", "a@b"):
        said = (f"version: {version[:64]!r} is not retained",)
        yield f"version {version[:9]}", NOT_FOUND, infer(IMAGES, model_version=version), said
    for number in (2**62, 2**64 - 1, 10**20 - 1):
        said = (f"version: {number} is not retained",)
        yield f"version {number}", NOT_FOUND, infer(IMAGES, model_version=str(number)), said


def bad_requests() -> Iterator[BadRequest]:
    """Yield bad requests: a name, the code, the request, and words of the message."""
    said: tuple[str, ...]
    for name in ("", "mnist38", "MNIST37"):
        request = infer(IMAGES)
        request.model_name = name
        yield (
            f"model {name}",
            NOT_FOUND,
            request,
            (f"model: there is no '{name}'", "there is mnist37"),
        )
    yield from bad_versions()

    request = changed_request(lambda r: r.inputs.pop())
    yield "no input", INVALID_ARGUMENT, request, ("inputs: got 0", "must be one, pixels")
    request = changed_request(lambda r: r.inputs.add().CopyFrom(r.inputs[0]))
    yield "two inputs", INVALID_ARGUMENT, request, ("inputs: got 2", "must be one, pixels")
    request = changed_request(lambda r: setattr(r.inputs[0], "name", "image" * 50_000))
    yield "another input", INVALID_ARGUMENT, request, ("inputs: got 'imageimage", "must be pixels")
    for datatype in ("", "uint8", "INT8", "FP16", "FP64", "BYTES"):
        request = infer(IMAGES[:2])
        request.inputs[0].datatype = datatype
        said = (f"pixels.datatype: got '{datatype}'", "must be UINT8 or FP32")
        yield f"datatype {datatype}", INVALID_ARGUMENT, request, said
    for shape in (
        [], [2], [784], [1568], [28, 28], [2, 783], [784, 2], [2, 28, 29], [2, 1, 784],
        [2, 28, 28, 1], [2, 784, 1], [0, 784], [-1, 784], [-2, -784], [-(2**63), 784], [2] * 1000,
    ):  # fmt: skip
        request = infer(IMAGES[:2])
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(shape)
        came = f"got {shape}" if len(shape) <= 4 else "got 1,000 dimensions"
        yield (
            f"shape {shape[:5]}",
            INVALID_ARGUMENT,
            request,
            ("pixels.shape: ", came, "[N, 784] or [N, 28, 28]"),
        )
    for count in (1, 3, 2**62):
        request = infer(IMAGES[:2])
        request.inputs[0].shape[0] = count
        said = ("raw_input_contents: got 1,568 bytes", f"must be {count * 784:,} for UINT8")
        yield f"raw of {count} images", INVALID_ARGUMENT, request, said
    request = changed_request(lambda r: setattr(r.inputs[0], "datatype", "FP32"))
    said = ("raw_input_contents: got 1,568 bytes", "must be 6,272 for FP32 of shape [2, 784]")
    yield "bytes as floats", INVALID_ARGUMENT, request, said
    request = changed_request(lambda r: r.raw_input_contents.append(b""))
    yield (
        "two raw contents",
        INVALID_ARGUMENT,
        request,
        ("raw_input_contents: got 2", "must be one"),
    )
    request = changed_request(lambda r: r.inputs[0].contents.uint_contents.append(0))
    yield (
        "raw and typed",
        INVALID_ARGUMENT,
        request,
        ("raw_input_contents: pixels has contents too",),
    )
    request = changed_request(lambda r: r.raw_input_contents.pop())
    field = "pixels.contents.uint_contents: "
    said = (field, "got 0 values", "must be 1,568 for shape [2, 784]", "raw_input_contents")
    yield "no data", INVALID_ARGUMENT, request, said
    request = changed_request(lambda r: r.inputs[0].contents.uint_contents.pop(), typed=True)
    yield "typed, too few", INVALID_ARGUMENT, request, (field, "got 1,567 values", "must be 1,568")
    for others in ("int_contents", "fp32_contents"):
        request = infer(IMAGES[:2], typed=True)
        getattr(request.inputs[0].contents, others).append(1)
        said = (f"pixels.contents: got {others}", "UINT8 must be in uint_contents")
        yield f"typed, {others}", INVALID_ARGUMENT, request, said
    for value in (256, 2**32 - 1):
        request = infer(IMAGES[:2], typed=True)
        request.inputs[0].contents.uint_contents[1000] = value
        said = ("pixels: got ", " for pixel 216 of image 1", "must be 0 to 255")
        yield f"UINT8 of {value}", INVALID_ARGUMENT, request, said
    for typed in (False, True):
        for pixel in (1.0000001, 255, -1e-45, -1, float("inf"), float("-inf"), float("nan")):
            request = with_value(pixel, typed=typed)
            said = ("pixels: got ", " for pixel 216 of image 1", "must be 0 to 1")
            yield f"FP32 of {pixel}{' typed' * typed}", INVALID_ARGUMENT, request, said
    for output in ("", "pixels", "logits"):
        wanted = [
            pb.ModelInferRequest.InferRequestedOutputTensor(name=n) for n in ("probability", output)
        ]
        said = (f"outputs: got '{output}'", "must be probability")
        yield f"output {output}", INVALID_ARGUMENT, infer(IMAGES, outputs=wanted), said
    for name in REFUSED_PARAMETERS:
        parameters = {name: pb.InferParameter(int64_param=2)}
        wanted = [
            pb.ModelInferRequest.InferRequestedOutputTensor(
                name="probability", parameters=parameters
            )
        ]
        said = (f"probability.parameters: got {name}; there ",)
        yield f"output's {name}", INVALID_ARGUMENT, infer(IMAGES, outputs=wanted), said
        said = (f"parameters: got {name}; there ",)
        yield name, INVALID_ARGUMENT, infer(IMAGES, parameters=parameters), said
        request = infer(IMAGES)
        request.inputs[0].parameters[name].int64_param = 2
        said = (f"pixels.parameters: got {name}; there ",)
        yield f"input's {name}", INVALID_ARGUMENT, request, said


@pytest.mark.parametrize(
    ("code", "request_", "said"),
    [pytest.param(*case, id=name) for name, *case in bad_requests()],
)
def test_a_bad_request_is_refused(
    stub: Any, code: grpc.StatusCode, request_: pb.ModelInferRequest, said: tuple[str, ...]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_, timeout=TIMEOUT)
    error = cast(grpc.Call, caught.value)
    details = error.details() or ""
    assert error.code() is code, details
    for words in said:
        assert words in details
    assert len(details) < 300
    for leaked in ("Traceback", "/", "Error"):
        assert leaked not in details


@pytest.mark.parametrize(
    ("name", "version"), [("mnist38", ""), ("mnist37", "x"), ("mnist37", "9" * 9)]
)
def test_an_unknown_model_or_version_is_not_found(stub: Any, name: str, version: str) -> None:
    for ask, request in (
        (stub.ModelReady, pb.ModelReadyRequest(name=name, version=version)),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=name, version=version)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask(request, timeout=TIMEOUT)
        assert cast(grpc.Call, caught.value).code() is NOT_FOUND


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1.0])
@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_the_ends_of_the_range_are_allowed(stub: Any, value: float, typed: bool) -> None:
    assert len(probabilities(stub.ModelInfer(with_value(value, typed=typed)))) == 2
