"""Tests of refusals: their codes and messages, and that a refused call changes nothing."""

from __future__ import annotations

import logging
import queue
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
import numpy as np
import pytest
from mnist37_client import InvalidInput, validation_images
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server.services import mnist37_service
from support.models import UncalledModel

SERVICE = "/mnist37.v1.Mnist37Service/"
IMAGE = validation_images()[0][0].tobytes()  # a three
GOOD = pb.Batch(pixels=IMAGE, labels=b"\1")
TIMEOUT = 20

Request = (
    pb.PredictRequest
    | pb.StepRequest
    | pb.TrainRequest
    | pb.GetLossRequest
    | pb.InitializeRequest
    | pb.GetModelRequest
)
NAMES: dict[type[Request], str] = {
    pb.PredictRequest: "Predict",
    pb.StepRequest: "Step",
    pb.TrainRequest: "Train",
    pb.GetLossRequest: "GetLoss",
    pb.InitializeRequest: "Initialize",
    pb.GetModelRequest: "GetModel",
}


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
    # A refused call must have state to change, and the version must not be 0, which is also the
    # value of an unset field.
    stub.Initialize(pb.InitializeRequest(), timeout=TIMEOUT)
    stub.Step(pb.StepRequest(), timeout=TIMEOUT)
    return stub


def send(stub: Any, request: Request) -> list[Any]:
    """Send a request and return its responses."""
    answer = getattr(stub, NAMES[type(request)])(request, timeout=TIMEOUT)
    return list(answer) if isinstance(request, pb.TrainRequest) else [answer]


@contextmanager
def refused(stub: Any, code: grpc.StatusCode, *said: str) -> Iterator[None]:
    """Assert that the body's call is refused with a code and words, and changes nothing.

    The model's version and digest must stay, and the server must still answer. The message must
    name the field of an invalid argument, and must not contain internals such as paths.
    """
    before = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = cast(grpc.Call, caught.value)
    details = error.details()
    assert details is not None
    assert error.code() is code, details
    for words in said:
        assert words in details
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        told = from_rpc(caught.value, "here")
        assert isinstance(told, InvalidInput)
        assert told.field is not None or told.reason == "MALFORMED_MESSAGE"
        assert told.field is None or details.startswith(f"{told.field}: ")
    for leaked in ("Traceback", "/", "File", "Error", "0x"):
        assert leaked not in details
    after = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)
    assert (after.version, after.digest) == (before.version, before.digest)
    answer = stub.Predict(pb.PredictRequest(pixels=IMAGE), timeout=TIMEOUT)
    assert answer.version == before.version
    assert len(answer.probabilities) == 1


@contextmanager
def perhaps_refused(code: grpc.StatusCode) -> Iterator[None]:
    """Accept that the body's call succeeds, or that it is refused with one code."""
    try:
        yield
    except grpc.RpcError as error:
        if cast(grpc.Call, error).code() is not code:
            raise


def batch(pixels: bytes = IMAGE * 3, labels: bytes = b"\1\0\1") -> pb.Batch:
    return pb.Batch(pixels=pixels, labels=labels)


def bad_requests() -> Iterator[tuple[str, Request, str, str, str]]:
    """Yield bad requests: a name, the request, and words of the message.

    The words are the field, the value that came, and the values that are allowed.
    """
    image = "784 bytes (28 x 28) an image"
    for size in (0, 1, 783, 785, 784 * 5 - 1):
        pixels, got = bytes(size), f"got {size:,} bytes"
        yield f"pixels {size}", pb.PredictRequest(pixels=pixels), "pixels: ", got, image
        bad = batch(pixels, b"\1" * max(size // 784, 1))
        yield f"pixels {size}", pb.StepRequest(batch=bad), "batch.pixels: ", got, image
        yield f"pixels {size}", pb.GetLossRequest(batch=bad), "batch.pixels: ", got, image

    labels = "batch.labels: "
    for name, bad, got, right in (
        ("labels missing", pb.Batch(pixels=IMAGE), "got 0 bytes for 1 images", "1 byte an image"),
        ("labels too few", batch(labels=b"\1\0"), "got 2 bytes for 3 images", "1 byte an image"),
        ("labels too many", batch(labels=b"\0" * 4), "got 4 bytes for 3 images", "1 byte an image"),
        ("labels 2", batch(labels=b"\1\0\2"), "got 2 for image 2", "1 (a three) or 0 (a seven)"),
        ("labels 255", batch(labels=b"\1\xff\0"), "got 255 for image 1", "1 (a three) or 0"),
        ("labels '1'", batch(labels=b"1\0\1"), "got 49 for image 0", "1 (a three) or 0"),
    ):
        yield name, pb.StepRequest(batch=bad), labels, got, right
        yield name, pb.GetLossRequest(batch=bad), labels, got, right
    empty = pb.Batch()
    yield "batch empty", pb.StepRequest(batch=empty), "batch.pixels: ", "got 0 bytes", image
    yield "batch empty", pb.GetLossRequest(batch=empty), "batch.pixels: ", "got 0 bytes", image

    right = "must be 1 to 1,000,000"
    yield "epochs missing", pb.TrainRequest(), "epochs: ", "missing", right
    for epochs in (0, 1_000_001, 2**32 - 1):
        got = f"got {epochs:,};"
        yield f"epochs {epochs}", pb.TrainRequest(epochs=epochs), "epochs: ", got, right

    right = "must be 1 to 12,396"
    for size in (0, 12_397, 2**32 - 1):
        many = pb.TrainRequest(epochs=1, batch_size=size)
        yield f"batch_size {size}", many, "batch_size: ", f"got {size:,};", right

    right = "must be above 0 and at most 3e+38"
    for value in ("0", "-0", "-1", "nan", "inf", "-inf", "1e+39", "1e+308", "-1e-320"):
        rate = float(value)
        name, field, got = f"learning_rate {value}", "learning_rate: ", f"got {rate:g};"
        yield name, pb.StepRequest(learning_rate=rate), field, got, right
        yield name, pb.StepRequest(batch=GOOD, learning_rate=rate), field, got, right
        yield name, pb.TrainRequest(epochs=1, learning_rate=rate), field, got, right

    for std in map(float, ("-0.1", "-1e-320", "100.1", "nan", "inf", "-inf")):
        wide, got = pb.InitializeRequest(std=std), f"got {std:g};"
        yield f"std {std}", wide, "std: ", got, "must be 0 to 100"

    right = "set split to SPLIT_TRAIN or SPLIT_VALID, or send a batch"
    unset = "neither split nor batch is set"
    yield "split and batch unset", pb.GetLossRequest(), "split: ", unset, right
    for split in (pb.SPLIT_UNSPECIFIED, 99, -1):
        unknown = pb.GetLossRequest(split=cast(pb.Split, split))
        yield f"split {split}", unknown, "split: ", f"got {split};", right

    for name in ("", "x" * 129, "\N{SNOWMAN}" * 129, "x" * 100_000):
        got, right = f"got {len(name):,} characters;", "must have 1 to 128"
        writes: tuple[Request, ...] = (
            pb.StepRequest(request_id=name),
            pb.TrainRequest(epochs=1, request_id=name),
            pb.InitializeRequest(request_id=name),
        )
        for write in writes:
            yield f"request_id of {len(name)}", write, "request_id: ", got, right


@pytest.mark.parametrize(
    ("request_", "field", "came", "right"),
    [
        pytest.param(request, *said, id=f"{NAMES[type(request)]}: {name}")
        for name, request, *said in bad_requests()
    ],
)
def test_a_bad_value_is_refused(
    stub: Any, request_: Request, field: str, came: str, right: str
) -> None:
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, field, came, right):
        send(stub, request_)


@pytest.mark.parametrize("version", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    "ask",
    [
        lambda version: pb.PredictRequest(pixels=IMAGE, version=version),
        lambda version: pb.GetLossRequest(split=pb.SPLIT_VALID, version=version),
        lambda version: pb.GetLossRequest(batch=GOOD, version=version),
    ],
    ids=["Predict", "GetLoss of a split", "GetLoss of a batch"],
)
def test_a_version_that_is_not_retained_is_not_found(
    stub: Any, ask: Callable[[int], Request], version: int
) -> None:
    newest = stub.GetModel(pb.GetModelRequest()).version
    said = (
        f"version: {version} is not retained",
        f"the model is at {newest}",
        "ListVersions names",
    )
    with refused(stub, grpc.StatusCode.NOT_FOUND, *said):
        send(stub, ask(version))


# --- Defaults: an explicit value is used as given, 0 included


def test_a_std_of_0_is_not_the_default(stub: Any) -> None:
    stub.Initialize(pb.InitializeRequest(std=0), timeout=TIMEOUT)
    model = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)
    assert not np.frombuffer(model.weights, "<f4").any()
    assert model.bias == 0


def test_a_seed_of_0_is_not_the_default(stub: Any) -> None:
    def drawn(request: pb.InitializeRequest) -> str:
        stub.Initialize(request, timeout=TIMEOUT)
        digest: str = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).digest
        return digest

    def trained(request: pb.TrainRequest) -> str:
        stub.Initialize(pb.InitializeRequest(), timeout=TIMEOUT)
        send(stub, request)
        digest: str = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).digest
        return digest

    usual = drawn(pb.InitializeRequest())
    assert drawn(pb.InitializeRequest(seed=0)) != usual
    assert drawn(pb.InitializeRequest(seed=42, std=1.0)) == usual
    usual = trained(pb.TrainRequest(epochs=1))
    assert trained(pb.TrainRequest(epochs=1, seed=0)) != usual
    assert trained(pb.TrainRequest(epochs=1, learning_rate=1.0, batch_size=256, seed=42)) == usual


def test_a_version_of_0_is_not_the_newest(stub: Any) -> None:
    assert stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).version > 0
    for request in (
        pb.PredictRequest(pixels=IMAGE, version=0),
        pb.GetLossRequest(split=pb.SPLIT_VALID, version=0),
    ):
        answers = []
        with perhaps_refused(grpc.StatusCode.NOT_FOUND):  # version 0 may no longer be retained
            answers = send(stub, request)
        assert [answer.version for answer in answers] in ([], [0])


# --- Learning rates that overflow float32

RATE = 2.0**127  # a power of 2, so that all sums below are exact
UNIT = RATE / 8  # by which one of two images moves a pixel's weight, if the image's score was 0


def image(*inked: int) -> bytes:
    return bytes(255 if pixel in inked else 0 for pixel in range(784))


def move_close_to_overflow(stub: Any) -> None:
    """Move the bias to 14 UNITs and the weight of CENTRE to -14 UNITs; float32 overflows at 16.

    An image changes nothing unless its score is 0. So each image also has spare pixels that make
    its score 0: their weights are 1 or -1 UNIT before the step, and 0 after it.
    """
    stub.Initialize(pb.InitializeRequest(std=0), timeout=TIMEOUT)
    spare = iter([pixel for pixel in range(784) if pixel != CENTRE])
    positive = [next(spare) for _ in range(sum(range(14)))]
    negative = [next(spare) for _ in range(2 * sum(range(0, 14, 2)))]
    batches = [(image(*positive), image(CENTRE, *negative), b"\1\0")]
    up, down = iter(positive), iter(negative)
    for units in range(1, 14):  # the blank image moves the bias back to its previous value
        partners = [next(up) for _ in range(units)]
        batches.append((image(), image(CENTRE, *partners), b"\1\0"))
    for units in range(0, 14, 2):
        first, second = ([next(down) for _ in range(units)] for _ in range(2))
        batches.append((image(*first), image(*second), b"\1\1"))
    for one, other, labels in batches:
        stub.Step(
            pb.StepRequest(batch=batch(one + other, labels), learning_rate=RATE), timeout=TIMEOUT
        )


CENTRE = 14 * 28 + 14


@pytest.mark.parametrize(
    "request_",
    [
        # The image's score is 0, so all parameters move by 2 UNITs. The bias overflows with one
        # label, CENTRE's weight with the other.
        pb.StepRequest(batch=batch(b"\xff" * 784, b"\0"), learning_rate=RATE),
        pb.StepRequest(batch=batch(b"\xff" * 784, b"\1"), learning_rate=RATE),
        # The score of the first training image with full ink at CENTRE is 0 too; the other images
        # change nothing.
        pb.TrainRequest(epochs=1, batch_size=1, learning_rate=RATE),
    ],
    ids=["Step, a seven", "Step, a three", "Train"],
)
def test_a_learning_rate_that_makes_the_parameters_overflow_is_refused(
    stub: Any, request_: Request
) -> None:
    with perhaps_refused(grpc.StatusCode.INVALID_ARGUMENT):  # an earlier refusal is correct too
        move_close_to_overflow(stub)
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, "learning_rate: ", "float32", "smaller"):
        send(stub, request_)
    (answer,) = send(stub, pb.StepRequest(learning_rate=1e-3))
    assert answer.version == stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).version
    stub.Initialize(pb.InitializeRequest(), timeout=TIMEOUT)


@pytest.mark.parametrize("period", [1, 4, 28, 392])
def test_with_any_learning_rate_predictions_are_probabilities(stub: Any, period: int) -> None:
    # The step makes finite weights of both signs whose sums over an image overflow.
    inked = [pixel for pixel in range(784) if pixel // period % 2]
    blank = [pixel for pixel in range(784) if pixel not in inked]
    huge = pb.StepRequest(batch=batch(image(*inked) + image(*blank), b"\1\0"), learning_rate=3e38)
    stub.Initialize(pb.InitializeRequest(std=0), timeout=TIMEOUT)
    with perhaps_refused(grpc.StatusCode.INVALID_ARGUMENT):
        send(stub, huge)
    (answer,) = send(stub, pb.PredictRequest(pixels=b"\xff" * 784 + IMAGE))
    assert all(0 <= probability <= 1 for probability in answer.probabilities)
    for request in (
        pb.GetLossRequest(split=pb.SPLIT_VALID),
        pb.GetLossRequest(split=pb.SPLIT_TRAIN),
        pb.GetLossRequest(batch=batch(b"\xff" * 784, b"\1")),
    ):
        (found,) = send(stub, request)
        assert 0 <= found.loss <= 1
        assert 0 <= found.accuracy <= 1
    stub.Initialize(pb.InitializeRequest(), timeout=TIMEOUT)


# --- PredictStream


@pytest.mark.parametrize("size", [0, 1, 783, 785])
def test_bad_pixels_end_their_stream_and_nothing_else(stub: Any, size: int) -> None:
    asked: queue.SimpleQueue[pb.PredictRequest | None] = queue.SimpleQueue()
    good = pb.PredictRequest(pixels=IMAGE)
    other = stub.PredictStream(iter(asked.get, None), timeout=TIMEOUT)
    asked.put(good)
    assert len(next(other).probabilities) == 1
    said = ("pixels: ", f"got {size:,} bytes", "784 bytes (28 x 28) an image")
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, *said):
        bad = pb.PredictRequest(pixels=bytes(size))
        answers = stub.PredictStream(iter([good, bad, good]), timeout=TIMEOUT)
        assert len(next(answers).probabilities) == 1
        next(answers)
    asked.put(good)
    assert len(next(other).probabilities) == 1
    asked.put(None)
    assert list(other) == []


def test_a_version_that_is_not_retained_ends_its_stream(stub: Any) -> None:
    with refused(stub, grpc.StatusCode.NOT_FOUND, f"version: {2**64 - 1} is not retained"):
        requests = [pb.PredictRequest(pixels=IMAGE, version=2**64 - 1)]
        list(stub.PredictStream(iter(requests), timeout=TIMEOUT))


# --- Messages that no service sees: too large, or undecodable


@pytest.mark.parametrize(
    "ask",
    [
        lambda stub, pixels: stub.Predict(pb.PredictRequest(pixels=pixels), timeout=TIMEOUT),
        lambda stub, pixels: list(
            stub.PredictStream(iter([pb.PredictRequest(pixels=pixels)]), timeout=TIMEOUT)
        ),
        lambda stub, pixels: stub.Step(
            pb.StepRequest(batch=pb.Batch(pixels=pixels)), timeout=TIMEOUT
        ),
    ],
    ids=["Predict", "PredictStream", "Step"],
)
def test_a_message_above_64_mib_is_refused(stub: Any, ask: Callable[[Any, bytes], object]) -> None:
    said = ("larger than max", f"vs. {64 * 2**20}")
    with refused(stub, grpc.StatusCode.RESOURCE_EXHAUSTED, *said):
        ask(stub, bytes(64 * 2**20))


UNARY = ["Predict", "Step", "GetLoss", "Initialize", "GetModel"]


@pytest.mark.parametrize("method", [*UNARY, "Train"])
@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\xff"], ids=["no tag", "too short"])
def test_bytes_that_are_no_message_are_refused(
    channel: Any, stub: Any, method: str, content: bytes
) -> None:
    said = (f"the message is not a serialized mnist37.v1.{method}Request",)
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, *said):
        list(channel.unary_stream(SERVICE + method)(content, timeout=TIMEOUT))


def test_bytes_that_are_no_message_end_their_stream_and_the_server_can_still_stop(
    server: LocalServer,
) -> None:
    with grpc.insecure_channel(server.address) as grpc_channel:
        channel: Any = grpc_channel
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        good = pb.PredictRequest(pixels=IMAGE).SerializeToString()
        for content in [[b"\xff\xff\xff"], [good, b"\x0a\xff"]] * 15:
            with refused(stub, grpc.StatusCode.INVALID_ARGUMENT):
                stream = channel.stream_stream(SERVICE + "PredictStream")
                list(stream(iter(content), timeout=TIMEOUT))
    server.process.terminate()
    try:
        assert server.process.wait(15) == 0
    finally:
        server.process.kill()  # otherwise the fixture would wait forever


def test_hundreds_of_bad_messages_do_not_block_a_server_whose_log_is_not_read(
    server: LocalServer,
) -> None:
    with grpc.insecure_channel(server.address) as grpc_channel:
        channel: Any = grpc_channel
        for _ in range(300):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(SERVICE + "GetModel")(b"\xff", timeout=5)
            assert cast(grpc.Call, caught.value).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("method", "field"), [("Step", b"\x1a"), ("Initialize", b"\x1a"), ("Train", b"\x2a")]
)
def test_a_request_id_that_is_not_utf8_is_refused(
    channel: Any, stub: Any, method: str, field: bytes
) -> None:
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, "is not a serialized"):
        list(channel.unary_stream(SERVICE + method)(field + b"\2\xff\xfe", timeout=TIMEOUT))


def test_pixels_as_a_number_are_no_pixels(channel: Any, stub: Any) -> None:
    with refused(stub, grpc.StatusCode.INVALID_ARGUMENT, "pixels: ", "got 0 bytes"):
        channel.unary_unary(SERVICE + "Predict")(b"\x08\x05", timeout=TIMEOUT)


@pytest.mark.parametrize("method", [SERVICE + "Forget", "/mnist37.v2.Mnist37Service/Predict"])
def test_an_unknown_method_is_refused(channel: Any, stub: Any, method: str) -> None:
    with refused(stub, grpc.StatusCode.UNIMPLEMENTED):
        channel.unary_unary(method)(b"", timeout=TIMEOUT)


# --- Unexpected errors

SECRET = "secret /etc/passwd"


class Broken(UncalledModel):
    """A model whose methods all fail, with a message that the caller must not see."""

    def unexpected_call(self) -> NoReturn:
        raise RuntimeError(SECRET)


@pytest.fixture(scope="module")
def broken() -> Iterator[Any]:
    """Return a stub of a server whose model is broken."""
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    mnist37_service.add_to(server, Broken(), Broken())
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield mnist37_pb2_grpc.Mnist37ServiceStub(channel)
    server.stop(0).wait()


@pytest.mark.parametrize(
    "ask",
    [
        lambda stub: send(stub, pb.PredictRequest(pixels=IMAGE)),
        lambda stub: list(stub.PredictStream(iter([pb.PredictRequest(pixels=IMAGE)]))),
        lambda stub: send(stub, pb.GetLossRequest(split=pb.SPLIT_VALID)),
        lambda stub: send(stub, pb.GetModelRequest()),
        lambda stub: send(stub, pb.StepRequest()),
        lambda stub: send(stub, pb.TrainRequest(epochs=1)),
        lambda stub: send(stub, pb.InitializeRequest()),
    ],
    ids=["Predict", "PredictStream", "GetLoss", "GetModel", "Step", "Train", "Initialize"],
)
def test_the_response_to_an_unexpected_error_is_a_number_that_the_log_has_too(
    broken: Any, caplog: pytest.LogCaptureFixture, ask: Callable[[Any], object]
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        ask(broken)
    error = cast(grpc.Call, caught.value)
    assert error.code() is grpc.StatusCode.INTERNAL
    details = error.details() or ""
    said = re.fullmatch(r"internal error ([0-9a-f]{12})", details)
    assert said, details
    assert SECRET not in str(error.trailing_metadata())
    (record,) = [record for record in caplog.records if said[1] in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert record.exc_text is not None
    assert "Traceback" in record.exc_text
    assert f"RuntimeError: {SECRET}" in record.exc_text


def test_each_unexpected_error_has_its_own_number(broken: Any) -> None:
    numbers = set()
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            send(broken, pb.GetModelRequest())
        numbers.add(cast(grpc.Call, caught.value).details())
    assert len(numbers) == 5
