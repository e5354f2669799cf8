"""Tests of the process: its end by a signal, and calls in flight then."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from support.local_web import LocalWeb, Reply

INFER = "/v2/models/mnist37/infer"
IMAGE = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784], "data": [9] * 784}


def unexpected(log: str) -> list[str]:
    """Return the lines of a log but for the one that says where web has started."""
    return [line for line in log.splitlines() if " INFO started address=" not in line]


class WebOfAScript(LocalWeb):
    """A web that a script starts which ignores the signals that end it, as `trap '' TERM` does."""

    command = ("sh", "-c", "trap '' TERM INT; exec \"$@\"", "sh", *LocalWeb.command)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_the_parent_ignores_ends_web_too(
    address: str, number: signal.Signals
) -> None:
    with WebOfAScript(address) as web:
        web.process.send_signal(number)
        assert web.process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_web_with_status_0(address: str, number: signal.Signals) -> None:
    with LocalWeb(address) as web:
        assert web.post(INFER, {"inputs": [IMAGE]}).status == 200
        idle = http.client.HTTPConnection(web.address, timeout=10)
        idle.request("GET", "/v2/health/live")
        idle.getresponse().read()
        start = time.monotonic()
        web.process.send_signal(number)
        web.process.wait(10)  # a second signal would end the calls in flight
        status, log = web.stop()
        assert (status, unexpected(log)) == (0, [])
        assert time.monotonic() - start < 5
        idle.close()


def test_a_run_in_flight_ends_with_web(server: LocalServer) -> None:
    replies: list[Reply] = []
    with LocalWeb(server.address) as web, Client(server.address) as client:
        thread = threading.Thread(
            target=lambda: replies.append(web.call("Train", {"epochs": 1_000_000}))
        )
        thread.start()
        while client.get_model().version < 100:
            time.sleep(0.02)
        start = time.monotonic()
        status, log = web.stop()
        assert (status, unexpected(log)) == (0, [])
        assert time.monotonic() - start < 4  # web waits 5 s for calls that have an end
        thread.join(20)
        (reply,) = replies
        last = json.loads(reply.body.splitlines()[-1])
        assert last == {"error": "the HTTP API is shutting down", "reason": "SHUTTING_DOWN"}
        deadline = time.monotonic() + 10
        while client.runs(limit=1)[0].state != "interrupted":
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("waits_for_an_answer", [True, False])
def test_a_client_that_leaves_a_stream_is_no_error(
    server: LocalServer, waits_for_an_answer: bool
) -> None:
    with LocalWeb(server.address) as web:
        for _ in range(5):
            stream = http.client.HTTPConnection(web.address, timeout=10)
            body, headers = b'{"epochs":1000000}', {"Content-Type": "application/json"}
            stream.request("POST", "/mnist37.v1.Mnist37Service/Train", body, headers)
            if waits_for_an_answer:
                response = stream.getresponse()
                assert json.loads(response.readline())["epoch"] > 0
                response.close()
            stream.close()
            web.get("/v2/health/live")
        status, log = web.stop()
    assert (status, unexpected(log)) == (0, [])


def test_a_server_that_is_away_is_503(server: LocalServer) -> None:
    with LocalWeb(server.address) as web:
        server.stop()
        for reply in (
            web.get("/v2/health/ready"),
            web.get("/v2/models/mnist37/ready"),
            web.post(INFER, {"inputs": [IMAGE]}),
            web.call("GetModel"),
            web.call("Train", {"epochs": 1}),
        ):
            assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")
            assert reply.headers["Retry-After"] == "1"
        assert web.get("/v2/health/live").status == 200
        with LocalServer("--device", "cpu", "--address", server.address):
            deadline = time.monotonic() + 10
            while web.get("/v2/health/ready").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert web.post(INFER, {"inputs": [IMAGE]}).status == 200


def test_a_full_server_is_429() -> None:
    with (
        LocalServer("--device", "cpu", "--max-streams", "1") as server,
        LocalWeb(server.address) as web,
        Client(server.address) as client,
    ):
        run = client.train(1_000_000)
        next(iter(run))
        reply = web.call("Train", {"epochs": 1})
        assert reply.status == 429, reply.body
        assert int(reply.headers["Retry-After"]) >= 1
        assert json.loads(reply.body)["code"] == "RESOURCE_EXHAUSTED"
        run.cancel()


def test_what_does_not_end_by_itself_names_no_time_to_try_again(server: LocalServer) -> None:
    with LocalWeb(server.address) as web:
        replies = [web.call("TagVersion", {"name": f"tag-{number}"}) for number in range(101)]
    assert [reply.status for reply in replies] == [200] * 100 + [429]
    assert replies[-1].json["reason"] == "TOO_MANY_TAGS"
    assert "Retry-After" not in replies[-1].headers


def test_a_server_that_is_not_serving_is_not_ready() -> None:
    # As while it shuts down: it says so, for some milliseconds, before it refuses calls.
    not_serving: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda *_: b"\x08\x02"
    )
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": not_serving})
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((health,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with LocalWeb(f"127.0.0.1:{port}") as web:
        reply = web.get("/v2/health/ready")
    server.stop(None)
    assert reply.status == 503
    assert reply.json["ready"] is False
    assert reply.json["error"] == "the server is not serving"
    assert reply.headers["Retry-After"] == "1"


def test_a_browser_asks_anew_whether_the_page_has_changed(web: LocalWeb) -> None:
    page = web.get("/page.js")
    assert page.headers["Cache-Control"] == "no-cache"
    unchanged = web.get("/page.js", headers={"If-None-Match": page.headers["ETag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
