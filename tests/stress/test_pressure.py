"""The limits that a server is started with: what they refuse, and that all else goes on."""

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
from mnist37_client._rpc.status import from_rpc
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

IMAGES, _ = validation_images()
TIMEOUT = 20
SMALL = {
    "--max-message-mib": 1,
    "--max-rpcs": 24,
    "--max-pending-writes": 4,
    "--max-streams": 4,
    "--keepalive": 1,
}


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    """The address of a server with little room."""
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
    """Calls that are begun, and whose message never comes."""
    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(TIMEOUT)
        yield from ()

    with grpc.insecure_channel(address) as mine:
        channel: Any = mine
        begin = channel.stream_unary(f"/mnist37.v1.Mnist37Service/{method}").future
        calls = [begin(silence(), timeout=TIMEOUT) for _ in range(count)]
        yield calls
        for call in calls:
            call.cancel()
        over.set()


def done(calls: list[Any], count: int) -> list[Any]:
    """Those of the calls that have ended, which are as many as `count` soon and no more."""
    until = time.monotonic() + TIMEOUT
    while sum(call.done() for call in calls) < count and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    ended = [call for call in calls if call.done()]
    assert len(ended) == count
    return ended


def test_beyond_max_rpcs_calls_are_refused_at_once_and_the_server_goes_on(
    small: str, client: Client
) -> None:
    with silent_calls(small, "GetLoss", 30) as calls:
        done(calls, 30 - 24)
        with pytest.raises(Exhausted, match="Concurrent RPC limit exceeded") as refused:
            client.predict(IMAGES[0])
        assert (refused.value.reason, refused.value.retry_after) == ("TOO_MANY_RPCS", 1.0)
    until = time.monotonic() + TIMEOUT
    while True:  # the places of those that left are free in a moment
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
        for call in done(calls, 10 - 3):  # and the run's caller waits
            refused = from_rpc(call.exception(), small)
            assert isinstance(refused, Exhausted)
            assert str(refused) == "4 callers wait for writes already; try again later"
            assert (refused.reason, refused.retry_after) == ("TOO_MANY_PENDING_WRITES", 1.0)
        assert client.get_loss("valid").count == 2038


def test_beyond_max_streams_streams_are_refused(small: str, client: Client) -> None:
    with grpc.insecure_channel(small) as channel, ExitStack() as leave:
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        over = threading.Event()
        leave.callback(over.set)

        def one() -> Iterator[pb.PredictRequest]:
            yield pb.PredictRequest(pixels=IMAGES[0].tobytes())
            over.wait(TIMEOUT)

        for _ in range(4):
            call = stub.PredictStream(one())
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


def test_the_run_of_a_peer_that_is_gone_without_a_word_stops(small: str, client: Client) -> None:
    """It is stopped as a process, but to the server's machine its connection is as good as ever."""
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOW, small], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGSTOP)
            assert client.runs()[0].state == "running"
            assert client.step().version > 0  # it waits for the run's end
            assert client.runs()[0].state == "interrupted"
        finally:
            process.kill()


def test_who_asks_for_a_sign_of_life_all_the_time_is_hung_up_on(small: str) -> None:
    over = threading.Event()

    def silence() -> Iterator[pb.PredictRequest]:
        over.wait(TIMEOUT)
        yield from ()

    options = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(small, options=options) as channel:
        call = mnist37_pb2_grpc.Mnist37ServiceStub(channel).PredictStream(silence())
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        over.set()
        error = from_rpc(caught.value, small)
    assert isinstance(error, Unavailable)
    assert "Too many pings" in str(error)


def test_callers_who_never_send_their_message_hold_nobody_up(client: Client) -> None:
    """Grpcio gives a call its thread before the call's message is there."""
    over = threading.Event()

    def silent() -> Iterator[bytes]:
        over.wait(30)
        yield from ()

    with grpc.insecure_channel(client.address) as channel:
        predict: Any = channel.stream_unary("/mnist37.v1.Mnist37Service/Predict")
        held = [predict.future(silent(), timeout=30) for _ in range(8)]
        time.sleep(0.2)
        image = np.zeros((28, 28), np.uint8)
        for _ in range(10):
            client.predict(image)
        began = time.monotonic()
        client.predict(image)
        assert time.monotonic() - began < 2
        over.set()
        for call in held:
            call.cancel()
