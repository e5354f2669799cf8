"""Tests of Triton's extensions of the Open Inference Protocol: their answers fit one another.

tests/integration/test_perf_analyzer.py makes the calls of NVIDIA's perf_analyzer, and tests/interop
has Triton's own client.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import grpc
import numpy as np
import pytest
from mnist37_client import Client, Exhausted, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from mnist37_protos.v1 import mnist37_pb2 as v1
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub
from mnist37_server.domain.position import Floor, Position
from mnist37_server.domain.snapshot import Images
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.services import health, mnist37_service, open_inference
from mnist37_server.services.field_limits import FIELDS_MAX
from numpy.typing import NDArray
from support.models import UncalledModel

PIXELS = validation_images()[0].reshape(-1, 784)
TIMEOUT = 20
NOT_FOUND, INVALID_ARGUMENT = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
OPTIONS = ("--device", "cpu", "--max-message-mib", "1", "--max-streams", "3")


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    """Return the address of a server with small limits, whose predictions nobody else counts."""
    with LocalServer(*OPTIONS) as server:
        yield server.address


@pytest.fixture(scope="module")
def channel(small: str) -> Iterator[Any]:
    with grpc.insecure_channel(small) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    return GRPCInferenceServiceStub(channel)


@pytest.fixture
def client(small: str) -> Iterator[Client]:
    with Client(small, timeout=TIMEOUT) as client:
        yield client


def infer(pixels: NDArray[np.uint8] = PIXELS[:2], **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=pixels.shape
    )
    fields = {"model_name": "mnist37", "raw_input_contents": [pixels.tobytes()], **fields}
    return pb.ModelInferRequest(inputs=[tensor], **fields)


def statistics(stub: Any, **fields: str) -> pb.ModelStatistics:
    request = pb.ModelStatisticsRequest(**fields)
    (entry,) = stub.ModelStatistics(request, timeout=TIMEOUT).model_stats
    assert isinstance(entry, pb.ModelStatistics)
    return entry


def counts(entry: pb.ModelStatistics) -> tuple[int, int, int]:
    """Return the images, the answered and the failed requests, after a check of all the rest."""
    parts, success = entry.inference_stats, entry.inference_stats.success
    answered = [parts.queue, parts.compute_input, parts.compute_infer, parts.compute_output]
    assert {part.count for part in answered} == {success.count} == {entry.execution_count}
    assert abs(success.ns - sum(part.ns for part in answered)) <= len(answered), "rounded"
    return entry.inference_count, success.count, parts.fail.count


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return how a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call())
    error = cast(grpc.Call, caught.value)
    return error.code(), error.details() or ""


# --- What the server says of itself


def test_the_server_names_the_extensions_that_it_has_as_a_whole(stub: Any, channel: Any) -> None:
    server = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT)
    assert list(server.extensions) == ["model_configuration", "statistics"]
    for method in (
        *("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"),
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "CudaSharedMemoryRegister"),
    ):
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        code, _ = status_of(lambda call=call: call(b"", timeout=TIMEOUT))
        assert code is grpc.StatusCode.UNIMPLEMENTED


def test_the_configuration_agrees_with_the_metadata(stub: Any) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="mnist37"), timeout=TIMEOUT)
    config = stub.ModelConfig(pb.ModelConfigRequest(name="mnist37"), timeout=TIMEOUT).config
    assert (config.name, config.platform, config.backend) == ("mnist37", "pytorch", "mnist37")
    assert config.platform == metadata.platform
    pairs = [
        *zip(config.input, metadata.inputs, strict=True),
        *zip(config.output, metadata.outputs, strict=True),
    ]
    for configured, tensor in pairs:
        assert configured.name == tensor.name
        assert pb.DataType.Name(configured.data_type) == f"TYPE_{tensor.datatype}"
        assert [-1, *configured.dims] == list(tensor.shape)
    assert list(config.input[0].dims) == [784]
    assert list(config.output[0].dims) == []


def test_the_largest_batch_of_the_configuration_is_answered(stub: Any) -> None:
    config = stub.ModelConfig(pb.ModelConfigRequest(name="mnist37"), timeout=TIMEOUT).config
    size = config.max_batch_size
    assert size == (2**20 - 4096) // 784
    note = pb.InferParameter(string_param="x" * 1000)
    request = infer(PIXELS[:size], id="i" * 1000, parameters={"note": note})
    answer = stub.ModelInfer(request, timeout=TIMEOUT)
    assert list(answer.outputs[0].shape) == [size]
    code, _ = status_of(lambda: stub.ModelInfer(infer(PIXELS[: size + 6]), timeout=TIMEOUT))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_configuration_is_that_of_each_version(stub: Any, client: Client) -> None:
    version = client.train(epochs=1).wait().version
    newest = stub.ModelConfig(pb.ModelConfigRequest(name="mnist37"), timeout=TIMEOUT)
    for named in ("0", str(version), "best@1"):
        request = pb.ModelConfigRequest(name="mnist37", version=named)
        assert stub.ModelConfig(request, timeout=TIMEOUT) == newest
    for name, named in (("mnist38", ""), ("", ""), ("mnist37", "999999"), ("mnist37", "x")):
        request = pb.ModelConfigRequest(name=name, version=named)
        assert status_of(lambda r=request: stub.ModelConfig(r, timeout=TIMEOUT))[0] is NOT_FOUND


def test_the_index_lists_the_model(stub: Any, client: Client) -> None:
    for ready in (False, True):
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready), timeout=TIMEOUT)
        (model,) = index.models
        newest = str(client.get_model().version)
        assert (model.name, model.version, model.state) == ("mnist37", newest, "READY")
        assert not model.reason
    named = pb.RepositoryIndexRequest(repository_name="models")
    code, text = status_of(lambda: stub.RepositoryIndex(named, timeout=TIMEOUT))
    assert (code, text) == (NOT_FOUND, "repository_name: there is no 'models' here; leave it empty")


# --- Statistics


def test_each_prediction_is_counted_once_by_whichever_method(stub: Any, client: Client) -> None:
    before = counts(statistics(stub))
    began = time.time()
    client.predict(PIXELS[:5])
    list(client.predict_stream([PIXELS[:2], PIXELS[:3]]))
    stub.ModelInfer(infer(PIXELS[:7]), timeout=TIMEOUT)
    list(stub.ModelStreamInfer(iter([infer(PIXELS[:11]), infer(PIXELS[:1])]), timeout=TIMEOUT))
    after = statistics(stub)
    assert np.subtract(counts(after), before).tolist() == [5 + 2 + 3 + 7 + 11 + 1, 6, 0]
    assert began - 0.002 <= after.last_inference / 1000 <= time.time() + 0.002
    client.get_loss("valid")
    assert counts(statistics(stub)) == counts(after), "a loss is no prediction"


def test_a_refused_request_is_a_failure_with_its_time(stub: Any, channel: Any) -> None:
    before = statistics(stub)
    behind = {"min_version": pb.InferParameter(int64_param=10**6)}  # waited for in vain
    refused = [infer(parameters=behind), infer(raw_input_contents=[b"x"]), infer(model_version="x")]
    for request in refused:
        status_of(lambda r=request: stub.ModelInfer(r, timeout=TIMEOUT))
    list(stub.ModelStreamInfer(iter(refused), timeout=TIMEOUT))
    own = Mnist37ServiceStub(channel)
    for predict in (v1.PredictRequest(pixels=b"x"), v1.PredictRequest(pixels=bytes(784), tag="x")):
        status_of(lambda r=predict: own.Predict(r, timeout=TIMEOUT))
    after = statistics(stub)
    assert np.subtract(counts(after), counts(before)).tolist() == [0, 0, 2 * 3 + 2]
    waited = after.inference_stats.fail.ns - before.inference_stats.fail.ns
    assert 0.4e9 < waited < 5e9, "two waits of 0.25 s"
    assert (
        after.last_inference == before.last_inference
        or abs(after.last_inference - before.last_inference) <= 1
    ), "rounded"


def test_what_is_no_request_for_the_model_counts_nowhere(stub: Any, channel: Any) -> None:
    before = counts(statistics(stub))
    status_of(lambda: stub.ModelInfer(infer(model_name="mnist38"), timeout=TIMEOUT))
    raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    assert status_of(lambda: raw(b"\xff", timeout=TIMEOUT))[0] is INVALID_ARGUMENT
    assert counts(statistics(stub)) == before


def test_concurrent_predictions_are_counted_exactly(stub: Any, client: Client) -> None:
    before = counts(statistics(stub))

    def predict(number: int) -> None:
        for _ in range(25):
            if number % 2:
                stub.ModelInfer(infer(PIXELS[:3]), timeout=TIMEOUT)
            else:
                client.predict(PIXELS[:4])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(predict, range(8)))
    after = counts(statistics(stub))
    assert np.subtract(after, before).tolist() == [4 * 25 * (3 + 4), 8 * 25, 0]


def test_the_statistics_are_those_of_all_versions(stub: Any, client: Client) -> None:
    version = str(client.train(epochs=1).wait().version)
    stub.ModelInfer(infer(), timeout=TIMEOUT)
    total = counts(statistics(stub))
    for fields, named in (
        ({}, "1"),
        ({"name": "mnist37"}, "1"),
        ({"version": "1"}, "1"),
        ({"name": "mnist37", "version": version}, version),
        ({"version": "best@1"}, "best@1"),
    ):
        entry = statistics(stub, **fields)
        assert (entry.name, entry.version) == ("mnist37", named)
        assert counts(entry) == total
    for fields in ({"name": "mnist38"}, {"version": "999999"}, {"version": "x"}):
        request = pb.ModelStatisticsRequest(**fields)
        code, _ = status_of(lambda r=request: stub.ModelStatistics(r, timeout=TIMEOUT))
        assert code is NOT_FOUND


def test_before_the_first_prediction_all_is_zero(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        entry = statistics(GRPCInferenceServiceStub(channel))
    assert counts(entry) == (0, 0, 0)
    assert entry.last_inference == entry.inference_stats.success.ns == 0


# --- Streams


def test_a_stream_answers_as_modelinfer_does_in_order(stub: Any) -> None:
    requests = [infer(PIXELS[n : 2 * n + 1], id=f"the {n}th") for n in range(40)]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT))
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        assert not answer.error_message
        response = answer.infer_response
        assert response.parameters.pop("triton_final_response").bool_param
        assert response == stub.ModelInfer(request, timeout=TIMEOUT)


def test_an_error_is_the_answer_to_its_request_and_the_stream_goes_on(stub: Any) -> None:
    bad = [
        infer(id="size", raw_input_contents=[b"x"]),
        infer(id="model", model_name="mnist38"),
        infer(id="version", model_version="999999"),
        infer(id="floor", parameters={"start": pb.InferParameter(int64_param=1)}),
    ]
    requests = [infer(id="first"), *bad, infer(id="last")]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT))
    assert [answer.infer_response.id for answer in answers] == [r.id for r in requests]
    assert answers[0].infer_response.raw_output_contents
    assert (
        answers[0].infer_response.raw_output_contents
        == answers[-1].infer_response.raw_output_contents
    )
    for request, answer in zip(bad, answers[1:-1], strict=True):
        _, text = status_of(lambda r=request: stub.ModelInfer(r, timeout=TIMEOUT))
        assert answer.error_message == text
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        assert not answer.infer_response.raw_output_contents


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xff", "the message is not a serialized inference.ModelInferRequest"),
        (b"\x2a\x00" * (FIELDS_MAX + 1), "the message has more than 4,096 fields"),
    ],
    ids=["no message", "too many fields"],
)
def test_a_message_that_is_no_request_ends_the_stream(
    channel: Any, message: bytes, said: str
) -> None:
    call = channel.stream_stream(STREAM)(
        iter([infer().SerializeToString(), message, infer().SerializeToString()]), timeout=TIMEOUT
    )
    assert pb.ModelStreamInferResponse.FromString(next(call)).infer_response.raw_output_contents
    code, text = status_of(lambda: call)
    assert code is INVALID_ARGUMENT
    assert said in text


def test_a_stream_predicts_with_the_live_model(stub: Any, client: Client) -> None:
    pixels = PIXELS[:9]
    with client.train(epochs=1_000_000) as run:

        def requests() -> Iterator[pb.ModelInferRequest]:
            for _ in range(10):
                next(run)
                yield infer(pixels)

        answers = list(stub.ModelStreamInfer(requests(), timeout=TIMEOUT))
    seen = [answer.infer_response for answer in answers]
    versions = [int(response.model_version) for response in seen]
    assert versions == sorted(versions)
    assert len(set(versions)) > 1
    for response in seen:
        expected = client.predict(pixels, version=int(response.model_version)).probabilities
        assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == expected.tolist()


def test_both_protocols_streams_have_one_limit(stub: Any, channel: Any, client: Client) -> None:
    stop = threading.Event()

    def one(request: Any) -> Iterator[Any]:
        yield request
        stop.wait(TIMEOUT)

    with ExitStack() as leave:
        leave.callback(stop.set)
        streams = [
            stub.ModelStreamInfer(one(infer())),
            Mnist37ServiceStub(channel).PredictStream(one(v1.PredictRequest(pixels=bytes(784)))),
            stub.ModelStreamInfer(one(infer())),
        ]
        for stream in streams:
            leave.callback(stream.cancel)
            next(stream)
        with pytest.raises(Exhausted, match=r"^3 streams are open already"):
            list(client.predict_stream([PIXELS[0]]))
        code, text = status_of(lambda: stub.ModelStreamInfer(iter([infer()]), timeout=TIMEOUT))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == "3 streams are open already; try again later"
        assert stub.ModelInfer(infer(), timeout=TIMEOUT).model_version, "calls are answered"
    deadline = time.monotonic() + TIMEOUT  # the places are free again
    while True:
        try:
            assert len(list(stub.ModelStreamInfer(iter([infer()]), timeout=TIMEOUT))) == 1
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_an_open_stream_does_not_delay_the_end_of_the_server(server: LocalServer) -> None:
    stop = threading.Event()

    def one() -> Iterator[pb.ModelInferRequest]:
        yield infer()
        stop.wait(TIMEOUT)

    with grpc.insecure_channel(server.address) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(one())
        assert not next(stream).error_message
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            next(stream)
        stop.set()
        assert server.process.wait(TIMEOUT) == 0
        assert time.monotonic() - began < 5, "the time of --shutdown-grace is 10"


class ScriptedModel(UncalledModel):
    """A model whose predictions do what a test says, in this process.

    Args:
        script: called in each prediction.
    """

    def __init__(self, script: Callable[[], object]) -> None:
        self._script = script

    def predict(
        self,
        images: Images,
        version: int | str | None = None,  # noqa: ARG002 - named as in the protocol
        floor: Floor | None = None,  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], Position]:
        self._script()
        return np.zeros(len(images), np.float32), Position(1, 7)


@contextmanager
def served(script: Callable[[], object]) -> Iterator[tuple[Any, InFlightCalls]]:
    """Serve such a model; return a stub, and the calls for which a shutdown waits."""
    server, model = grpc.server(ThreadPoolExecutor(4)), ScriptedModel(script)
    service = mnist37_service.add_to(server, model, model)
    probes = ThreadPoolExecutor(4)
    serving = health.add_to(server, [open_inference.SERVICE], probes, "cpu")
    open_inference.add_to(server, model, service, serving, probes)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield GRPCInferenceServiceStub(channel), service.in_flight
    server.stop(0).wait(TIMEOUT)
    probes.shutdown()


def test_a_fault_of_the_server_is_an_id_for_the_caller_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = iter([RuntimeError("the secret /path")])

    def fail_once() -> None:
        for fault in faults:
            raise fault

    with served(fail_once) as (stub, _), caplog.at_level(logging.ERROR, "mnist37_server"):
        requests = [infer(id="first"), infer(id="second")]
        first, second = stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT)
    assert first.error_message.startswith("internal error ")
    assert "secret" not in first.error_message
    assert first.infer_response.id == "first"
    assert (second.error_message, second.infer_response.model_version) == ("", "7")
    (record,) = caplog.records
    assert first.error_message == record.getMessage()
    assert vars(record)["method"] == "ModelStreamInfer"
    assert record.exc_info


@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
def test_a_shutdown_waits_for_the_answer_and_not_for_the_stream(streaming: bool) -> None:
    asked, go_on, threads = threading.Event(), threading.Event(), []

    def wait() -> None:
        threads.append(threading.current_thread().name)
        asked.set()
        assert go_on.wait(TIMEOUT)

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield infer()
        go_on.wait(TIMEOUT)
        time.sleep(1)

    never = threading.Event()
    with served(wait) as (stub, in_flight), ThreadPoolExecutor(1) as waiting:
        call = stub.ModelStreamInfer(requests()) if streaming else stub.ModelInfer.future(infer())
        assert asked.wait(TIMEOUT)
        idle = waiting.submit(in_flight.wait_until_idle, TIMEOUT, never)
        time.sleep(4 * in_flight.PAUSE_SECONDS)
        assert not idle.done(), "the request has no answer"
        go_on.set()
        began = time.monotonic()
        idle.result(TIMEOUT)
        assert time.monotonic() - began < 0.8
        if streaming:
            assert next(call).infer_response.model_version == "7"
            call.cancel()
            assert threads[0].startswith("long-call"), "where a stream keeps no other call waiting"
        else:
            assert call.result(TIMEOUT).model_version == "7"
