"""Tests of the end of a server: it waits for calls in flight, writes included, not for streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server.domain.commands.commands import Request
from mnist37_server.engine.writes.subscription import Subscription
from mnist37_server.errors import ShuttingDown
from mnist37_server.rpc.drain import InFlightCalls
from mnist37_server.services import mnist37_service
from support.models import UncalledModel

TIMEOUT = 10
PAUSE = InFlightCalls.PAUSE_SECONDS
NEVER = threading.Event()


class SlowModel(UncalledModel):
    """A model that accepts writes and does not answer them."""

    start = 1

    def __init__(self) -> None:
        self.callers: Future[Subscription] = Future()

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        assert caller is not None
        self.callers.set_result(caller)
        return caller

    def cancel(self, caller: Subscription) -> None:
        caller.end(error=ShuttingDown("the caller left"))


@pytest.fixture
def port() -> Iterator[SimpleNamespace]:
    model = SlowModel()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        service = mnist37_service.add_to(server, model, model, 16)
        number = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
            stub: Any = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
            yield SimpleNamespace(model=model, stub=stub, in_flight=service.in_flight)
        server.stop(0).wait()


@pytest.mark.parametrize(
    "write",
    [
        lambda stub: stub.Step.future(pb.StepRequest()),
        lambda stub: stub.Initialize.future(pb.InitializeRequest()),
        lambda stub: stub.Restore.future(pb.RestoreRequest(version=1)),
        lambda stub: stub.Import.future(pb.ImportRequest(weights=bytes(784 * 4), bias=0)),
        lambda stub: stub.Train(pb.TrainRequest(epochs=1)),
    ],
    ids=["Step", "Initialize", "Restore", "Import", "Train"],
)
def test_a_write_is_waited_for(port: SimpleNamespace, write: Callable[[Any], Any]) -> None:
    call = write(port.stub)
    caller = port.model.callers.result(TIMEOUT)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(port.in_flight.wait_until_idle, TIMEOUT, NEVER)
        time.sleep(4 * PAUSE)
        assert not waiting.done(), "the write has no answer"
        caller.end(error=ShuttingDown("probing"))
        answered = time.monotonic()
        waiting.result(TIMEOUT)
        assert time.monotonic() - answered >= PAUSE, "the answer needs time to be sent"
    assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_an_idle_stream_is_not_waited_for(port: SimpleNamespace) -> None:
    def silence() -> Iterator[pb.PredictRequest]:
        time.sleep(8 * PAUSE)
        yield from ()

    stream = port.stub.PredictStream(silence())
    began = time.monotonic()
    port.in_flight.wait_until_idle(TIMEOUT, NEVER)
    assert time.monotonic() - began < 6 * PAUSE
    assert stream.is_active()


def test_the_wait_ends_at_its_timeout(port: SimpleNamespace) -> None:
    call = port.stub.Step.future(pb.StepRequest())
    port.model.callers.result(TIMEOUT)
    began = time.monotonic()
    port.in_flight.wait_until_idle(3 * PAUSE, NEVER)
    assert 3 * PAUSE <= time.monotonic() - began < TIMEOUT / 2
    assert not call.done()


def test_the_wait_ends_when_it_is_cut_short(port: SimpleNamespace) -> None:
    call = port.stub.Step.future(pb.StepRequest())
    port.model.callers.result(TIMEOUT)
    hurry = threading.Event()
    threading.Timer(3 * PAUSE, hurry.set).start()
    began = time.monotonic()
    port.in_flight.wait_until_idle(TIMEOUT, hurry)
    assert 3 * PAUSE <= time.monotonic() - began < TIMEOUT / 2
    assert not call.done()
