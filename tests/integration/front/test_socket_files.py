"""Tests of servers that reach each other by socket files, whose paths no caller is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from mnist37_protos.v1 import mnist37_pb2 as pb
from support.following import TIMEOUT, Server, refusal
from support.fronted import Front, is_serving
from support.local_web import LocalWeb, WebCaller
from support.scraping import wait_until

REQUESTS = (
    pb.StepRequest(),
    pb.ListRunsRequest(),
    pb.GetModelRequest(version=9),
    pb.GetModelRequest(tag="a"),
    pb.GetLossRequest(split=pb.SPLIT_VALID, version=9),
    pb.PredictRequest(pixels=bytes(784), version=9),
)


class CalledFront(Front):
    """A front that is called as a server is."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.channel = grpc.insecure_channel(self.address)

    def call(self, rpc: str, request: Message, timeout: float = TIMEOUT) -> Any:
        return Server.call(self, rpc, request, timeout)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Return a follower, a front and a web whose owner is gone, and was a socket file."""
    owner = f"unix:{tmp_path_factory.mktemp('hidden')}/owner.sock"
    with (
        Server("--device", "cpu", "--address", owner) as server,
        Server("--follow", owner) as follower,
        CalledFront(owner) as front,
        LocalWeb(owner) as web,
    ):
        follower.wait_until_serving()
        assert wait_until(lambda: is_serving(front), 60)
        server.kill()
        yield [follower, front, web]


def assert_is_hidden(text: str) -> None:
    for part in ("hidden", ".sock", "mnist37-front"):
        assert part not in text


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_no_caller_of_grpc_is_told_the_path(lost: list[Any], request_: Any) -> None:
    rpc = type(request_).__name__.removesuffix("Request")
    follower, front, _ = lost
    for server in (follower, front):
        failure = refusal(server, rpc, request_)
        assert failure.reason in ("OWNER_UNREACHABLE", "NOT_OWNER")
        assert_is_hidden(str(failure))
        assert_is_hidden(str(failure.metadata))
        if "owner" in failure.metadata:
            assert failure.metadata["owner"] == "unix:..."


def test_no_caller_of_http_is_told_the_path(lost: list[Any]) -> None:
    _, front, web = lost
    for caller in (web, WebCaller(f"http://{front.address}")):
        for method, body in (("Step", {}), ("GetModel", {"version": 9}), ("Train", {"epochs": 1})):
            reply = caller.call(method, body)
            assert reply.status == 503
            assert_is_hidden(reply.json["error"])
