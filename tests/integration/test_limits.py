"""Tests of deadlines and limits: a call past its deadline never begins, extra calls are refused.

The server is the real one. Its model does not answer until a test sets an event.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.errors import Exhausted
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server.config import RESERVED_RPCS, Config
from mnist37_server.domain.position import Floor, Position
from mnist37_server.errors import CannotStart
from mnist37_server.rpc.server import build
from mnist37_server.rpc.threads import elastic_pool
from mnist37_server.services import mnist37_service
from support.models import UncalledModel

IMAGE = pb.PredictRequest(pixels=bytes(784))
IMAGES = pb.PredictRequest(pixels=bytes(784 * 100))  # enough that Predict checks for its caller
TIMEOUT = 20


class BlockedModel(UncalledModel):
    """A model that counts its predictions, and blocks each until `go_on` is set."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.count = 0
        self.go_on = threading.Event()

    def predict_bytes(
        self,
        message: bytes,
        offset: int,
        count: int,
        version: int | str | None = None,
        floor: Floor | None = None,  # noqa: ARG002 - named as in the protocol
    ) -> tuple[bytearray, Position]:
        assert offset + 784 * count == len(message)
        self.count += 1
        self.asked.release()
        assert self.go_on.wait(TIMEOUT)
        return bytearray(4 * count), Position(1, int(version or 0))


@pytest.fixture
def model() -> Iterator[BlockedModel]:
    model = BlockedModel()
    yield model
    model.go_on.set()


@pytest.fixture
def stub(model: BlockedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a stub of a server that accepts 40 calls and does not replace blocked threads."""
    monkeypatch.setattr(elastic_pool, "BLOCKED_AFTER_SECONDS", TIMEOUT)
    config = Config(
        "127.0.0.1:0", max_rpcs=40, max_pending_writes=4, max_streams=4, max_followers=0
    )
    server, address = build(config)
    mnist37_service.add_to(server, model, model, config.max_rpcs, config.max_streams)
    server.start()
    with grpc.insecure_channel(str(address)) as channel:
        yield mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        model.go_on.set()
    server.stop(0).wait()


def occupy(stub: Any, model: BlockedModel) -> list[Any]:
    """Start calls that block all threads for short calls, and return them."""
    calls = [
        stub.Predict.future(IMAGE, timeout=TIMEOUT) for _ in range(elastic_pool.SHORT_CALL_THREADS)
    ]
    for _ in calls:
        assert model.asked.acquire(timeout=TIMEOUT)
    return calls


def test_a_call_whose_deadline_passes_while_it_waits_for_a_thread_is_never_begun(
    stub: Any, model: BlockedModel
) -> None:
    held = occupy(stub, model)
    late = [stub.Predict.future(IMAGE, timeout=0.1) for _ in range(20)]
    left = [stub.Predict.future(IMAGE, timeout=TIMEOUT) for _ in range(5)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    for call in left:
        call.cancel()
    with pytest.raises(grpc.RpcError):
        # The model refuses this call, which the server handles after the cancelled ones.
        stub.ListRuns(pb.ListRunsRequest(), timeout=TIMEOUT)
    model.go_on.set()
    for call in held:
        call.result()
    stub.Predict(IMAGE, timeout=TIMEOUT)
    assert model.count == len(held) + 1


def test_a_deadline_that_passes_before_the_message_arrives_is_noticed() -> None:
    # The server's only event thread is busy meanwhile, so grpc itself cannot notice the deadline.
    model = BlockedModel()
    model.go_on.set()
    busy, over = threading.Event(), threading.Event()

    class Busy(grpc.ServerInterceptor):
        """An interceptor that blocks the event thread at a GetModel."""

        def intercept_service(self, continuation: Any, details: Any) -> Any:
            if details.method.endswith("GetModel"):
                busy.set()
                assert over.wait(TIMEOUT)
            return continuation(details)

    server = grpc.server(ThreadPoolExecutor(2), interceptors=[Busy()])
    port = server.add_insecure_port("127.0.0.1:0")
    mnist37_service.add_to(server, model, model)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as grpc_channel:
        channel: Any = grpc_channel
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        stub.Predict(IMAGE, timeout=TIMEOUT)

        def when_busy() -> Iterator[bytes]:
            stub.GetModel.future(pb.GetModelRequest(), timeout=TIMEOUT)
            assert busy.wait(TIMEOUT)
            yield IMAGES.SerializeToString()

        late = channel.stream_unary("/mnist37.v1.Mnist37Service/Predict").future(
            when_busy(), timeout=0.5
        )
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        over.set()
        stub.Predict(IMAGE, timeout=TIMEOUT)
    server.stop(0).wait()
    assert model.count == 2


def test_calls_beyond_the_cap_are_refused_at_once_and_the_others_are_answered(
    stub: Any, model: BlockedModel
) -> None:
    # The server accepts 40 calls; calls that wait for a thread count.
    held = occupy(stub, model)
    more = [stub.Predict.future(IMAGE, timeout=TIMEOUT) for _ in range(60)]
    until = time.monotonic() + TIMEOUT
    while sum(call.done() for call in more) < 24 and time.monotonic() < until:
        time.sleep(0.01)
    refused = [call for call in more if call.done()]
    assert len(refused) == 24
    for call in refused:
        error = from_rpc(call.exception(), "here")
        assert isinstance(error, Exhausted)
        assert (error.reason, error.retry_after) == ("TOO_MANY_RPCS", 1.0)
    model.go_on.set()
    for call in held + [call for call in more if call not in refused]:
        assert call.code() is grpc.StatusCode.OK
    assert stub.Predict(IMAGE, timeout=TIMEOUT).version == 0


def test_max_rpcs_leaves_calls_for_others_than_writes_and_streams() -> None:
    least = 256 + 2 * 256 + 64 + RESERVED_RPCS
    assert Config(max_rpcs=least).max_rpcs == least
    assert Config(max_rpcs=0).max_rpcs == 0, "no limit"
    with pytest.raises(
        CannotStart, match=f"--max-rpcs: got 100; must be 0 for no limit, or at least {least}:"
    ):
        Config(max_rpcs=100)
