"""Tests of connections whose client sends more than one request, or reads no reply."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from mnist37_client import Client
from support.local_web import LocalWeb
from support.vitals import MIB, Vitals

SERVICE = "/mnist37.v1.Mnist37Service/"
CHUNKED = "Transfer-Encoding: chunked\r\n"


class Connection:
    """A connection to a web, for bytes of all kinds."""

    def __init__(self, web: LocalWeb, receive_buffer: int | None = None) -> None:
        host, _, port = web.address.rpartition(":")
        self._host = web.address
        self.socket = socket.socket()
        self.socket.settimeout(20)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, int(port)))

    def request(self, start: str, headers: str = "", body: bytes = b"") -> bytes:
        """Return the bytes of a request."""
        head = f"{start} HTTP/1.1\r\nHost: {self._host}\r\n{headers}\r\n"
        return head.encode() + body

    def post(self, path: str, body: bytes = b"{}", headers: str = "") -> bytes:
        """Return the bytes of a POST."""
        if headers != CHUNKED:
            headers += f"Content-Length: {len(body)}\r\n"
        return self.request(f"POST {path}", f"Content-Type: application/json\r\n{headers}", body)

    def flood(self, content: bytes, times: int) -> bool:
        """Send bytes again and again; return whether web has ended the connection."""
        try:
            for _ in range(times):
                self.socket.sendall(content)
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def watch(self, path: str = "/page/events") -> None:
        """Begin a stream that has no end."""
        self.socket.sendall(self.post(path, headers=f"Origin: http://{self._host}\r\n"))
        assert self.socket.recv(4096).startswith(b"HTTP/1.1 200 ")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def memory(web: LocalWeb) -> int:
    return Vitals.of_family(web.process.pid).memory


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_client_that_leaves_a_further_request_behind_ends_its_call(
    client: Client, address: str, web: LocalWeb
) -> None:
    with Client(address) as other:
        run = other.train(1_000_000)
        next(iter(run))  # it takes all of the writer
        with Connection(web) as connection:
            body = json.dumps({"epochs": 5, "name": "abandoned"}).encode()
            connection.socket.sendall(connection.post(f"{SERVICE}Train", body))
            wait_until(lambda: [run.name for run in client.runs(state="queued")] == ["abandoned"])
            connection.socket.sendall(connection.request("GET /v2/health/live"))
            time.sleep(0.2)  # web reads it
        wait_until(lambda: not client.runs(state="queued"))
        run.cancel()
    wait_until(lambda: client.runs(limit=1)[0].state != "running")


def test_requests_that_come_before_a_reply_are_answered_in_order(web: LocalWeb) -> None:
    with Connection(web) as connection:
        paths = [f"/v2/nothing-{number}" for number in range(10)]
        requests = [connection.request(f"GET {path}") for path in paths]
        connection.socket.sendall(b"".join(requests))
        replies = b""
        while replies.count(b"not found") < 10:
            replies += connection.socket.recv(65_536)
        places = [replies.index(path.encode()) for path in paths]
        assert places == sorted(places)


def test_too_many_requests_before_a_reply_end_the_connection(web: LocalWeb) -> None:
    before = memory(web)
    with Connection(web) as connection:
        connection.watch()
        assert connection.flood(connection.request("GET /v2") * 1_000, 5)
    assert memory(web) < before + 20 * MIB


def test_headers_that_do_not_end_before_a_reply_end_the_connection(web: LocalWeb) -> None:
    before = memory(web)
    with Connection(web) as connection:
        connection.watch()
        connection.socket.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert connection.flood(b"a" * MIB, 50)
    assert memory(web) < before + 20 * MIB


def test_trailers_that_do_not_end_end_the_connection(web: LocalWeb) -> None:
    before = memory(web)
    with Connection(web) as connection:
        body = b"2\r\n{}\r\n0\r\n"
        connection.socket.sendall(connection.post(f"{SERVICE}GetModel", body, CHUNKED))
        assert connection.flood(b"".join(b"a%d: b\r\n" % n for n in range(30_000)), 30)
    assert memory(web) < before + 20 * MIB


def test_trailers_are_no_headers(web: LocalWeb) -> None:
    with Connection(web) as connection:
        body = b"2\r\n{}\r\n0\r\nHost: elsewhere\r\nAuthorization: nonsense\r\n\r\n"
        connection.socket.sendall(connection.post(f"{SERVICE}GetModel", body, CHUNKED))
        assert connection.socket.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_what_follows_an_upgrade_is_no_request(web: LocalWeb) -> None:
    with Connection(web) as connection:
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        request = connection.request("GET /v2/health/live", upgrade)
        connection.socket.sendall(request)
        reply = b"".join(iter(lambda: connection.socket.recv(4096), b""))
        assert reply.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "content", [b"nonsense\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"]
)
def test_a_refused_request_gets_the_headers_of_all_replies(web: LocalWeb, content: bytes) -> None:
    with Connection(web) as connection:
        connection.socket.sendall(content)
        head = connection.socket.recv(4096).lower()
    assert b"content-security-policy: default-src 'self'" in head
    assert b"x-content-type-options: nosniff" in head


class HastyWeb(LocalWeb):
    """A web that gives its clients half a second to read, and knows two tokens at a time.

    The system takes few bytes of a reply, so that the rest waits in web.
    """

    command = (
        *(sys.executable, "-P", "-c"),
        "import socket\n"
        "from mnist37_web.listening import connections, serving\n"
        "begin = connections.LimitedProtocol.connection_made\n"
        "def begin_small(protocol, transport):\n"
        "    taken = transport.get_extra_info('socket')\n"
        "    taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)\n"
        "    begin(protocol, transport)\n"
        "connections.LimitedProtocol.connection_made = begin_small\n"
        "from mnist37_web.upstream import callers\n"
        "connections.READ_SECONDS = serving.IDLE_SECONDS = 0.5\n"
        "callers.CALLERS_MAX = 2\n"
        "from mnist37_web.command import start; start()",
    )


@pytest.fixture(scope="module")
def hasty(address: str) -> Iterator[LocalWeb]:
    with HastyWeb(address) as web:
        yield web


@pytest.mark.parametrize("ends", ["", "Connection: close\r\n"])
def test_replies_that_are_not_read_hold_no_connection(hasty: LocalWeb, ends: str) -> None:
    def files() -> int:
        return Vitals.of_family(hasty.process.pid).files

    hasty.get("/")  # it has opened what it needs
    before = files()
    with ExitStack() as leave:
        for _ in range(10):
            connection = leave.enter_context(Connection(hasty, receive_buffer=2_048))
            request = connection.request("GET /openapi.json")
            connection.socket.sendall(request * 14 + connection.request("GET /", ends))
        hasty.get("/")  # this connection is accepted after the others
        wait_until(lambda: files() <= before)


def test_bodies_that_do_not_come_hold_no_place_of_a_token(hasty: LocalWeb) -> None:
    with ExitStack() as leave:
        for number in range(5):
            connection = leave.enter_context(Connection(hasty))
            token = f"Authorization: Bearer nobody-{number}\r\n"
            whole = connection.post(f"{SERVICE}GetModel", b"{}", token)
            connection.socket.sendall(whole[:-1])
        time.sleep(0.2)  # web reads them
        assert hasty.call("GetModel", token="somebody").status == 200
