"""Tests of a server's limits: the calls that they refuse, and that other calls continue."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Client, Exhausted, Unavailable, validation_images
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

IMAGES, _ = validation_images()
TIMEOUT = 20
SMALL = {
    "--max-message-mib": 1,
    "--max-rpcs": 28,
    "--max-pending-writes": 4,
    "--max-streams": 4,
    "--max-followers": 0,
    "--keepalive": 1,
}


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    """Return the address of a server with small limits."""
    options = [str(part) for option in SMALL.items() for part in option]
    with LocalServer("--device", "cpu", *options) as server:
        yield server.address


@pytest.fixture
def client(small: str) -> Iterator[Client]:
    with Client(small, timeout=TIMEOUT) as client:
        yield client
        client.predict(IMAGES[0])


@contextmanager
def silent_calls(address: str, method: str, count: int) -> Iterator[list[Any]]:
    """Start calls whose message is never sent, and cancel them at the end."""
    stop = threading.Event()

    def silent_requests() -> Iterator[bytes]:
        stop.wait(TIMEOUT)
        yield from ()

    with grpc.insecure_channel(address) as grpc_channel:
        channel: Any = grpc_channel
        begin = channel.stream_unary(f"/mnist37.v1.Mnist37Service/{method}").future
        calls = [begin(silent_requests(), timeout=TIMEOUT) for _ in range(count)]
        yield calls
        for call in calls:
            call.cancel()
        stop.set()


def wait_for_ended_calls(calls: list[Any], count: int) -> list[Any]:
    """Wait until `count` of the calls have ended, assert that no more do, and return these."""
    deadline = time.monotonic() + TIMEOUT
    while sum(call.done() for call in calls) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    ended_calls = [call for call in calls if call.done()]
    assert len(ended_calls) == count
    return ended_calls


def test_beyond_max_rpcs_calls_are_refused_at_once_and_the_server_goes_on(
    small: str, client: Client
) -> None:
    with silent_calls(small, "GetLoss", 34) as calls:
        wait_for_ended_calls(calls, 34 - 28)
        with pytest.raises(Exhausted, match="Concurrent RPC limit exceeded") as refused:
            client.predict(IMAGES[0])
        assert (refused.value.reason, refused.value.retry_after) == ("TOO_MANY_RPCS", 1.0)
    until = time.monotonic() + TIMEOUT
    while True:  # the cancelled calls soon no longer count
        try:
            assert client.predict(IMAGES[0]).version == client.get_model().version
            break
        except Exhausted:
            assert time.monotonic() < until


def test_beyond_max_pending_writes_writes_are_refused(small: str, client: Client) -> None:
    with grpc.insecure_channel(small) as channel, ExitStack() as leave:
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        next(leave.enter_context(client.train(1_000_000)))
        calls = [stub.Step.future(pb.StepRequest()) for _ in range(10)]
        for call in calls:
            leave.callback(call.cancel)
        for call in wait_for_ended_calls(calls, 10 - 3):  # 3, because the run's caller counts too
            refused = from_rpc(call.exception(), small)
            assert isinstance(refused, Exhausted)
            assert str(refused) == "4 callers wait for writes already; try again later"
            assert (refused.reason, refused.retry_after) == ("TOO_MANY_PENDING_WRITES", 1.0)
        assert client.get_loss("valid").count == 2038


def test_beyond_max_streams_streams_are_refused(small: str, client: Client) -> None:
    with grpc.insecure_channel(small) as channel, ExitStack() as leave:
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        stop = threading.Event()
        leave.callback(stop.set)

        def one_request() -> Iterator[pb.PredictRequest]:
            yield pb.PredictRequest(pixels=IMAGES[0].tobytes())
            stop.wait(TIMEOUT)

        for _ in range(4):
            call = stub.PredictStream(one_request())
            leave.callback(call.cancel)
            next(call)
        with pytest.raises(Exhausted, match=r"^4 streams are open already") as refused:
            list(client.predict_stream([IMAGES[0]]))
        assert (refused.value.reason, refused.value.retry_after) == ("TOO_MANY_STREAMS", 1.0)


def test_a_message_beyond_max_message_is_refused(client: Client) -> None:
    with pytest.raises(Exhausted, match=f"larger than max .* vs. {2**20}") as refused:
        client.predict(np.zeros((1400, 784), np.uint8))
    assert (refused.value.reason, refused.value.retry_after) == ("MESSAGE_TOO_LARGE", None)
    assert len(client.predict(np.zeros((1300, 784), np.uint8)).digits) == 1300


FOLLOW = """
import sys
from mnist37_client import Client
for progress in Client(sys.argv[1]).train(1_000_000):
    if progress.epoch == 1:
        print("running", flush=True)
"""


def test_the_run_of_a_silent_peer_stops(small: str, client: Client) -> None:
    # The client's process is stopped. To the server's kernel its connection looks intact.
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOW, small], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGSTOP)
            assert client.runs()[0].state == "running"
            assert client.step().version > 0  # waits for the end of the run
            assert client.runs()[0].state == "interrupted"
        finally:
            process.kill()


def test_a_connection_with_too_many_pings_is_closed(small: str) -> None:
    stop = threading.Event()

    def silent_requests() -> Iterator[pb.PredictRequest]:
        stop.wait(TIMEOUT)
        yield from ()

    options = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(small, options=options) as channel:
        call = mnist37_pb2_grpc.Mnist37ServiceStub(channel).PredictStream(silent_requests())
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        stop.set()
        error = from_rpc(caught.value, small)
    assert isinstance(error, Unavailable)
    assert "Too many pings" in str(error)


def test_callers_that_never_send_a_message_do_not_block_others(client: Client) -> None:
    # grpcio assigns a thread to a call before the call's message has arrived.
    stop = threading.Event()

    def silent_requests() -> Iterator[bytes]:
        stop.wait(30)
        yield from ()

    with grpc.insecure_channel(client.address) as channel:
        predict: Any = channel.stream_unary("/mnist37.v1.Mnist37Service/Predict")
        calls = [predict.future(silent_requests(), timeout=30) for _ in range(8)]
        time.sleep(0.2)
        image = np.zeros((28, 28), np.uint8)
        for _ in range(10):
            client.predict(image)
        began = time.monotonic()
        client.predict(image)
        assert time.monotonic() - began < 2
        stop.set()
        for call in calls:
            call.cancel()
