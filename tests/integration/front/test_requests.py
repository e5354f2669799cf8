"""Tests of requests that Envoy or pyvoy takes otherwise than the server or `mnist37 web`."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from mnist37_client import Client, Unavailable
from mnist37_client.local_server import LocalServer
from mnist37_front.asgi.held_messages import HELD_BYTES_MAX, MESSAGES_MIN
from mnist37_front.envoy.routes import PROTOCOL
from mnist37_protos.v1 import mnist37_pb2 as pb
from support.fronted import FrontedServer
from support.guarding import secret, tokens_file
from support.local_web import WebCaller
from support.raw_http2 import (
    ACK,
    END_HEADERS,
    HEADERS,
    PING,
    RawConnection,
    frame,
    grpc_message,
    headers_of,
)
from support.scraping import wait_until

SERVICE = "/mnist37.v1.Mnist37Service/"
SECONDS = 20
BLANK = np.zeros(784, np.uint8)


@pytest.fixture(scope="module")
def http_api(fronted: LocalServer) -> WebCaller:
    return WebCaller(f"http://{fronted.address}")


def send(address: str, content: bytes) -> tuple[bytes, bytes]:
    """Send bytes; return the headers and the body of the reply."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.sendall(content)
        reply = b""
        while b"\r\n\r\n" not in reply:
            part = connection.recv(65_536)
            assert part
            reply += part
        head, _, body = reply.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65_536)
    return head, body


@pytest.mark.parametrize(
    "path", ["/%ff", "/v2/models/%ed%a0%80", "/v2/models/mnist37/versions/%C3%A9", "/page/%80"]
)
def test_a_path_that_is_not_ascii_is_answered(http_api: WebCaller, path: str) -> None:
    reply = http_api.get(path)
    assert reply.status == 400
    assert reply.json["error"]


def test_a_call_whose_path_is_not_utf8_is_answered(fronted: LocalServer) -> None:
    with RawConnection(fronted.address) as connection:
        for path in ("/grpc.health.v1.Health/%ff", f"{SERVICE}%ff", "/a/%c0%80"):
            assert connection.wait(connection.call(path), SECONDS) is not None


@pytest.mark.parametrize(("path", "status"), [("/v2/health/live", 200), ("/v2/nothing", 404)])
def test_a_reply_to_head_has_no_body(fronted: LocalServer, path: str, status: int) -> None:
    """Read all bytes: on a connection that goes on, a body would be taken for the next reply."""
    host, _, port = fronted.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        head = f"HEAD {path} HTTP/1.1\r\nHost: {fronted.address}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        reply = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert reply.partition(b"\r\n\r\n")[2] == b""


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Predict", "application/grpc"),
        ("GetModel", "application/grpc"),  # it would be passed on
        ("GetModel", "application/grpc+proto"),
        ("GetModel", "application/grpc-web"),
        ("GetModel", "application/grpcx"),
    ],
)
def test_a_page_under_a_foreign_name_cannot_call_by_grpc(
    fronted: LocalServer, method: str, kind: str
) -> None:
    """Send what a browser can: by HTTP/1.1, to a name that leads here, with any type."""
    message = grpc_message(pb.PredictRequest(pixels=bytes(784)).SerializeToString())
    if method == "GetModel":
        message = grpc_message(b"")
    head, body = send(
        fronted.address,
        f"POST {SERVICE}{method} HTTP/1.1\r\nHost: elsewhere.example\r\nContent-Type: {kind}\r\n"
        f"Origin: http://elsewhere.example\r\n{PROTOCOL}: HTTP/2\r\n"
        f"Content-Length: {len(message)}\r\n\r\n".encode()
        + message,
    )
    assert head.startswith(b"HTTP/1.1 403 ")
    assert json.loads(body)["reason"] == "HOST_UNKNOWN"


@pytest.mark.parametrize("path", ["/%2d/authorize/", "/-/%61uthorize/"])
def test_the_question_of_envoy_behind_percent_signs_is_a_request_as_others(
    fronted: LocalServer, path: str
) -> None:
    """Send it as a foreign page could: its answer would say whether there are tokens."""
    head, body = send(
        fronted.address,
        f"POST {path}{SERVICE[1:]}Train HTTP/1.1\r\nHost: elsewhere.example\r\n"
        "Content-Length: 0\r\n\r\n".encode(),
    )
    assert head.startswith(b"HTTP/1.1 403 ")
    assert json.loads(body)["reason"] == "HOST_UNKNOWN"


REFUSED = {
    "no HTTP/1.1": (b"GET / HTTP/1.0\r\n\r\n", 426),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two lengths": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
    ),
    "long headers": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    "an upgrade": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        403,
    ),
    "the question of Envoy itself": (
        b"GET /-/authorize/mnist37.v1.Mnist37Service/Train HTTP/1.1\r\nHost: a\r\n\r\n",
        404,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_envoy_refuses_has_the_form_of_all_errors(fronted: LocalServer, name: str) -> None:
    content, status = REFUSED[name]
    head, body = send(fronted.address, content)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    assert b"content-security-policy: default-src 'self'" in head
    assert json.loads(body)["error"].startswith("the request is refused: ")


class PingedConnection(RawConnection):
    """A connection that counts the pings of its server."""

    pings = 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self.pings += kind == PING and not flags & ACK
        super()._take(kind, flags, stream, payload)


def test_callers_are_sent_pings_as_often_as_keepalive_says() -> None:
    with (
        FrontedServer("--device", "cpu", "--keepalive", "1") as server,
        PingedConnection(server.address) as connection,
    ):
        assert wait_until(lambda: connection.pings > 1, SECONDS)


def test_calls_without_a_token_do_not_make_valid_ones_forbidden(tmp_path: Path) -> None:
    """Have more calls wait for the verification of their tokens than Envoy verifies at a time."""
    kinds = set()
    tokens = tokens_file(tmp_path / "tokens", "predict")
    block = headers_of(f"{SERVICE}GetLoss", ("authorization", "Bearer nobody-s"))
    calls = b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, block) for n in range(1_000))
    with (
        FrontedServer("--device", "cpu", "--tokens", str(tokens)) as server,
        Client(server.address, token=secret("predict"), timeout=SECONDS, retry_for=0) as client,
        ExitStack() as leave,
    ):
        client.get_model()
        strangers = [leave.enter_context(RawConnection(server.address)) for _ in range(5)]
        for stranger in strangers:
            stranger.send(calls)
        for _ in range(5):
            try:
                client.get_model(version=0)
                kinds.add("answered")
            except Unavailable as error:
                kinds.add(f"{error.reason}: {str(error).removeprefix(f'{server.address}: ')}")
    assert kinds <= {"answered", "OVERLOADED: the front has too many calls; try again"}


def test_half_sent_messages_of_a_caller_shut_out_no_other(tmp_path: Path) -> None:
    """Hold more of messages than there is room for: the oldest are dropped, and others go on."""
    tokens = tokens_file(tmp_path / "tokens", "predict")
    size = (HELD_BYTES_MAX // MESSAGES_MIN) - 1_000  # of a message, below the largest
    bearer = ("authorization", f"Bearer {secret('predict')}")
    with (
        FrontedServer("--device", "cpu", "--tokens", str(tokens)) as server,
        Client(server.address, token=secret("predict"), timeout=SECONDS, retry_for=0) as client,
        ExitStack() as leave,
    ):
        streams = []
        for _ in range(MESSAGES_MIN + 2):
            connection = leave.enter_context(RawConnection(server.address))
            streams.append((connection, connection.begin(f"{SERVICE}Predict", bearer)))
            connection.send_data(streams[-1][1], grpc_message(bytes(size))[:-1])
        for connection, stream in streams[:2]:
            assert connection.wait(stream, SECONDS) is not None
        assert not any(stream in connection.ends for connection, stream in streams[2:])
        client.predict(BLANK)
        newest, stream = streams[-1]
        newest.send_data(stream, b"\0", end=True)  # all of it: what it lacks is an image
        assert newest.wait(stream, SECONDS) is not None


def test_a_burst_of_calls_lets_the_other_connections_have_their_turn(fronted: LocalServer) -> None:
    """Call beside a burst: the answer comes before most of the burst's have come."""
    shares = []
    with RawConnection(fronted.address) as one:
        for _ in range(10):
            with RawConnection(fronted.address) as many:
                many.call_at_once("/grpc.health.v1.Health/Check", 1_000)
                assert one.wait(one.call("/grpc.health.v1.Health/Check"), SECONDS) is not None
                shares.append(len(many.ends))
    assert min(shares) < 300, shares


class SmallFront(FrontedServer):
    """A server behind a front with a small heap: Envoy begins with 40 MiB."""

    command = (
        *(sys.executable, "-P", "-c"),
        "from mnist37_front.envoy import configuration\n"
        "from mnist37_server.rpc import process\n"
        "configuration.HEAP_BYTES = 64 << 20\n"
        "process.prepare()\n"
        "from mnist37_front.command import start\n"
        "from mnist37_front.serve_command import serve\n"
        "start(serve, 'mnist37 serve --front')",
    )


def test_answers_that_are_not_read_shut_out_no_other() -> None:
    """Leave more unread than fits the heap: the calls that hold most of it end."""
    with (
        SmallFront("--device", "cpu") as server,
        RawConnection(server.address, window=0) as other,
        Client(server.address, timeout=SECONDS, retry_for=0) as client,
    ):
        client.train(800).wait()
        for number in range(1_000):
            other.call(f"{SERVICE}ListVersions")
            if number % 10 == 0:
                client.predict(BLANK)
                time.sleep(0.05)  # Envoy resets up to 200 calls a second
            if len(other.ends) > 50:
                break
        assert wait_until(lambda: len(other.ends) > 50, SECONDS)
        client.predict(BLANK)
        client.step()
