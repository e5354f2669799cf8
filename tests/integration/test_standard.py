"""Tests of health and reflection: correct, bounded, and no obstacle to other calls."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, cast

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.inference import open_inference_pb2_grpc as inference_grpc
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.rpc.threads.elastic_pool import SHORT_CALL_THREADS
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service, open_inference
from mnist37_server.services import reflection as reflection_service
from mnist37_server.services.reflection import REFLECTIONS_MAX
from mnist37_server.storage.store import Store
from support.twin import datasets

from mnist37.host import Host

MNIST37, INFERENCE = "mnist37.v1.Mnist37Service", "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
IMAGES = validation_images()[0][:3]
TIMEOUT = 20


def health_request(service: str) -> Any:
    return health_pb2.HealthCheckRequest(service=service)


def reflection_request(**question: str) -> Any:
    return reflection_pb2.ServerReflectionRequest(**question)


def infer() -> inference.ModelInferRequest:
    tensor = inference.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=IMAGES.shape
    )
    return inference.ModelInferRequest(
        model_name="mnist37", inputs=[tensor], raw_input_contents=[IMAGES.tobytes()]
    )


class InProcessServer(NamedTuple):
    """A server in this process, so that a test can begin its shutdown."""

    port: int
    health: health_service.Health


@pytest.fixture
def in_process() -> Iterator[InProcessServer]:
    server = grpc.server(ThreadPoolExecutor(SHORT_CALL_THREADS))
    model = LiveModel(datasets(), Host(), Store(None))
    service = mnist37_service.add_to(server, model, model)
    probes = ThreadPoolExecutor(1024)
    health = health_service.add_to(server, [MNIST37, INFERENCE], probes, "cpu")
    reflection_service.add_to(server, [MNIST37, INFERENCE, health_service.NAME], probes)
    open_inference.add_to(server, model, service, health, probes)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield InProcessServer(port, health)
    server.stop(0).wait(TIMEOUT)
    probes.shutdown()
    model.stop_writing()
    model.close()


@pytest.fixture
def channel(in_process: InProcessServer) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{in_process.port}") as channel:
        yield channel


def test_each_service_is_serving_under_its_name(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", MNIST37, INFERENCE):
            assert stub.Check(health_request(name), timeout=TIMEOUT).status == SERVING
            watch = stub.Watch(health_request(name), timeout=TIMEOUT)
            assert next(watch).status == SERVING
            watch.cancel()
        unknown = stub.Watch(health_request("no.such.Service"), timeout=TIMEOUT)
        assert next(unknown).status == UNKNOWN
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_request("no.such.Service" * 1000), timeout=TIMEOUT)
        error = cast(grpc.Call, caught.value)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        details = error.details() or ""
        assert "service: there is no 'no.such.Service" in details
        assert MNIST37 in details
        assert len(details) < 300


def test_during_shutdown_health_is_not_serving_and_predictions_work(
    in_process: InProcessServer, channel: Any
) -> None:
    health, stub = (
        health_pb2_grpc.HealthStub(channel),
        inference_grpc.GRPCInferenceServiceStub(channel),
    )
    names = ["", MNIST37, INFERENCE]
    watches = [health.Watch(health_request(name), timeout=TIMEOUT) for name in names]
    assert [next(watch).status for watch in watches] == [SERVING] * 3
    assert stub.ServerReady(inference.ServerReadyRequest()).ready
    in_process.health.begin_shutdown()
    assert [next(watch).status for watch in watches] == [NOT_SERVING] * 3
    assert [health.Check(health_request(name)).status for name in names] == [NOT_SERVING] * 3
    assert next(health.Watch(health_request(""))).status == NOT_SERVING
    assert stub.ServerLive(inference.ServerLiveRequest()).live
    assert not stub.ServerReady(inference.ServerReadyRequest()).ready
    assert not stub.ModelReady(inference.ModelReadyRequest(name="mnist37")).ready
    (model,) = stub.RepositoryIndex(inference.RepositoryIndexRequest()).models
    assert (model.state, model.reason) == ("UNAVAILABLE", "the server is not serving")
    assert (model.name, model.version) == ("mnist37", "0")
    assert not stub.RepositoryIndex(inference.RepositoryIndexRequest(ready=True)).models
    assert len(stub.ModelInfer(infer()).raw_output_contents[0]) == 3 * 4


def test_a_probes_exit_status_says_whether_the_server_serves(in_process: InProcessServer) -> None:
    address = f"127.0.0.1:{in_process.port}"

    def probe() -> tuple[int, str, str]:
        command = [sys.executable, "-m", "mnist37_client.cli", "health", "--address", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert probe() == (0, "serving, the model is on cpu\n", "")
    in_process.health.begin_shutdown()
    assert probe() == (3, "", f"mnist37: {address} is not serving\n")


def test_a_server_that_ends_notifies_its_watchers_first_and_does_not_wait_for_them(
    server: LocalServer,
) -> None:
    # Open watches, reflections and a run must not delay the end.
    stop = threading.Event()
    with grpc.insecure_channel(server.address) as grpc_channel, Client(server.address) as client:
        channel: Any = grpc_channel
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_request(MNIST37), timeout=TIMEOUT)
        assert next(watch).status == SERVING
        silent = reflection(channel, silent_requests(stop))
        run = client.train(epochs=1_000_000)
        next(run)
        server.process.terminate()
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)
        with pytest.raises(grpc.RpcError):
            next(silent)
        stop.set()
        assert server.process.wait(TIMEOUT) == 0


def test_open_watches_and_reflections_are_bounded_and_block_no_other_calls(channel: Any) -> None:
    # Open as many streams as are allowed: one more is refused, all other calls are answered.
    health, stub = (
        health_pb2_grpc.HealthStub(channel),
        inference_grpc.GRPCInferenceServiceStub(channel),
    )
    stop = threading.Event()
    with ExitStack() as leave:
        leave.callback(stop.set)
        held = [
            health.Watch(health_request(""), timeout=60) for _ in range(health_service.WATCHES_MAX)
        ]
        assert {next(watch).status for watch in held} == {SERVING}
        open_reflections = [
            reflection(channel, silent_requests(stop, first=reflection_request(list_services="")))
            for _ in range(REFLECTIONS_MAX)
        ]
        for stream in open_reflections:
            next(stream)
        for one_more, code in (
            # A client that checks the health takes this code for "healthy": see the test below.
            (health.Watch(health_request(""), timeout=TIMEOUT), grpc.StatusCode.UNIMPLEMENTED),
            (reflection(channel, silent_requests(stop)), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                next(one_more)
            error = cast(grpc.Call, caught.value)
            assert error.code() is code
            assert "are open already; try again later" in (error.details() or "")
        assert health.Check(health_request(""), timeout=TIMEOUT).status == SERVING
        assert stub.ServerLive(inference.ServerLiveRequest(), timeout=TIMEOUT).live
        assert stub.ModelInfer(infer(), timeout=TIMEOUT).model_version == "0"
        for watch in held:
            watch.cancel()
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:  # the cancelled watches soon end, and a new one is accepted
        with suppress(grpc.RpcError):
            assert next(health.Watch(health_request(""), timeout=TIMEOUT)).status == SERVING
            return
        time.sleep(0.05)
    pytest.fail("a new watch is still refused")


def test_clients_that_check_the_health_are_served_beyond_the_limit_of_watches(
    in_process: InProcessServer,
) -> None:
    # gRPC's own check: the channel watches the health, and is ready only while the server serves.
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
    }
    options = (
        ("grpc.service_config", json.dumps(config)),
        ("grpc.use_local_subchannel_pool", 1),  # a connection, and a watch, for each channel
    )
    address = f"127.0.0.1:{in_process.port}"
    with ExitStack() as leave:
        stubs = [
            inference_grpc.GRPCInferenceServiceStub(
                leave.enter_context(grpc.insecure_channel(address, options))
            )
            for _ in range(300)
        ]
        assert len(stubs) > health_service.WATCHES_MAX
        # All at once: without an answer to its watch, a channel waits.
        calls = [
            stub.ServerLive.future(
                inference.ServerLiveRequest(), timeout=TIMEOUT, wait_for_ready=True
            )
            for stub in stubs
        ]
        assert all(call.result().live for call in calls)


def test_a_watcher_that_reads_nothing_blocks_no_other_calls(
    in_process: InProcessServer, channel: Any
) -> None:
    # The watcher's HTTP/2 window is 0, so no message to it can be sent completely.
    health = health_pb2_grpc.HealthStub(channel)
    with socket.create_connection(("127.0.0.1", in_process.port)) as watcher:
        window_of_0 = struct.pack(">HI", 4, 0)
        headers = {
            ":method": "POST", ":scheme": "http", ":path": "/grpc.health.v1.Health/Watch",
            ":authority": "here", "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        watcher.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, window_of_0))
        watcher.sendall(frame(1, 4, 1, b"".join(map(literal, headers.items()))))
        watcher.sendall(frame(0, 1, 1, bytes(5)) + frame(4, 1, 0, b""))
        time.sleep(0.2)
        other = health.Watch(health_request(""), timeout=TIMEOUT)
        assert next(other).status == SERVING
        assert health.Check(health_request(""), timeout=TIMEOUT).status == SERVING
        in_process.health.begin_shutdown()
        assert next(other).status == NOT_SERVING


def test_health_calls_that_never_send_a_message_block_no_other_calls(server: LocalServer) -> None:
    stop = threading.Event()
    with grpc.insecure_channel(server.address) as grpc_channel, ExitStack() as leave:
        channel: Any = grpc_channel
        leave.callback(stop.set)
        silent = channel.stream_unary("/grpc.health.v1.Health/Check")
        for _ in range(400):  # more than there may be watches and reflections
            leave.callback(silent.future(silent_requests(stop), timeout=TIMEOUT).cancel)
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(20):
            assert health.Check(health_request(""), timeout=TIMEOUT / 2).status == SERVING
            time.sleep(0.01)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(header: tuple[str, str]) -> bytes:
    """Return a header as a literal without indexing (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in header)


# --- Reflection


def silent_requests(stop: threading.Event, first: Any = None) -> Iterator[Any]:
    if first is not None:
        yield first
    stop.wait()


def reflection(channel: Any, questions: Iterator[Any], version: str = "v1alpha") -> Any:
    return channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(questions, timeout=TIMEOUT)


def test_a_client_without_the_proto_can_call_the_server(client: Client, address: str) -> None:
    with grpc.insecure_channel(address) as grpc_channel:
        channel: Any = grpc_channel
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            MNIST37, INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
        }  # fmt: skip
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(MNIST37).methods_by_name["Predict"]
        request_class = message_factory.GetMessageClass(method.input_type)
        answer_class = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{MNIST37}/Predict", request_class.SerializeToString, answer_class.FromString
        )
        answer = call(request_class(pixels=IMAGES.tobytes()), timeout=TIMEOUT)
        expected = client.predict(IMAGES)
        assert answer.version == expected.version
        assert list(answer.probabilities) == expected.probabilities.tolist()


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_finds_the_symbols_that_grpcurl_looks_up(address: str, version: str) -> None:
    found = {
        f"{MNIST37}": "mnist37_protos/v1/mnist37.proto",
        f"{MNIST37}.Train": "mnist37_protos/v1/mnist37.proto",
        "mnist37.v1.Batch": "mnist37_protos/v1/mnist37.proto",
        f"{INFERENCE}.ModelInfer": "mnist37_protos/inference/open_inference.proto",
        "inference.ModelInferRequest.InferInputTensor": (
            "mnist37_protos/inference/open_inference.proto"
        ),
        f"{MNIST37}.Forget": None,
        "no.such.Thing": None,
        "": None,
    }
    questions = [reflection_request(file_containing_symbol=symbol) for symbol in found]
    with grpc.insecure_channel(address) as channel:
        answers = list(reflection(channel, iter(questions), version))
    for file, answer in zip(found.values(), answers, strict=True):
        if file is None:
            assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        else:
            files = answer.file_descriptor_response.file_descriptor_proto
            assert file.encode() in files[0]
