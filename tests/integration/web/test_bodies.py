"""Tests of bodies that are large, slow, incomplete or hostile: they harm nobody else."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mnist37_client import Client
from support.local_web import LocalWeb
from support.vitals import MIB, Vitals

INFER = "/v2/models/mnist37/infer"
STREAM = "/mnist37.v1.Mnist37Service/PredictStream"
SIZE = "Inference-Header-Content-Length"
JSON_MAX = 8 * MIB
TENSOR = b'{"inputs":[{"name":"pixels","datatype":"%b","shape":[%d,784],"data":[%b]}]}'


def fill(size: int, begin: bytes, piece: bytes, end: bytes) -> bytes:
    """Return a body of a size, almost all of it copies of a piece."""
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


def tensor(size: int, datatype: bytes, value: bytes, last: bytes) -> bytes:
    count = (size - 200) // (len(value) + 1) // 784
    return TENSOR % (datatype, count, (value + b",") * (count * 784 - 1) + last)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: fill(size, b'{"inputs":[', b"[],", b"[]]}"),
    "200,000 lists": lambda size: fill(min(size, 600_000), b'{"inputs":[', b"[],", b"[]]}"),
    "objects": lambda size: fill(size, b'{"inputs":[', b"{},", b"{}]}"),
    "texts": lambda size: fill(size, b'{"id":[', b'"a",', b'"a"]}'),
    "names": lambda size: fill(size, b"{", b'"a":1,', b'"a":1}'),
    "escapes": lambda size: fill(size, b'{"id":"', rb"\u0041", b'"}'),
    "levels": lambda size: b"[" * size,
    "levels of objects": lambda size: b'{"a":' * (size // 5),
    "a long number": lambda size: fill(size, b'{"id":', b"9", b"}"),
    "a long fraction": lambda size: fill(size, b'{"id":0.', b"9", b"}"),
    "a long text": lambda size: fill(size, b'{"id":"', b"a", b'"}'),
    "spaces": lambda size: b" " * size,
    "no JSON": lambda size: b"\xff" * size,
    "large numbers": lambda size: tensor(size, b"UINT8", b"18446744073709551615", b"1"),
    "a wrong last pixel": lambda size: tensor(size, b"UINT8", b"0", b"256"),
    "a true at the end": lambda size: tensor(size, b"UINT8", b"0", b"true"),
    "a text at the end": lambda size: tensor(size, b"FP32", b"1e0", b'"a"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_and_others_are_answered(web: LocalWeb, name: str) -> None:
    body = HOSTILE[name](JSON_MAX)
    others = http.client.HTTPConnection(web.address, timeout=20)
    slowest = []
    for path in (INFER, "/mnist37.v1.Mnist37Service/GetLoss"):
        worst, replies = 0.0, []
        thread = threading.Thread(target=lambda: replies.append(web.post(path, body)))  # noqa: B023
        thread.start()
        while thread.is_alive():
            start = time.perf_counter()
            others.request("GET", "/v2/health/live")
            others.getresponse().read()
            worst = max(worst, time.perf_counter() - start)
            time.sleep(0.005)
        slowest.append(worst)
        assert replies[0].status == 400, replies[0].body
        assert len(replies[0].json["error"]) < 2_100
    others.close()
    # They take 0.1 s at most where nothing else runs; without the limits up to 1 s.
    assert min(slowest) < 0.5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lists", "the body has 2,796,199 lists; must be at most 200,000"),
        ("objects", "the body has 2,796,199 objects; must be at most 200"),
        ("escapes", "the body has 1,398,099 backslashes; must be at most 10,000"),
    ],
)
def test_what_a_text_may_hold_is_counted_before_it_is_parsed(
    web: LocalWeb, name: str, text: str
) -> None:
    assert web.post(INFER, HOSTILE[name](JSON_MAX)).json["error"] == text


def test_memory_comes_back_after_hostile_bodies(web: LocalWeb) -> None:
    bodies = [make(MIB) for make in HOSTILE.values()]

    def send(count: int) -> int:
        for number in range(count):
            assert web.post(INFER, bodies[number % len(bodies)]).status == 400
        return Vitals.of_family(web.process.pid).memory

    before = send(2 * len(bodies))
    assert send(200) < before + 16 * MIB


def test_64_mib_of_images_are_predicted(client: Client, web: LocalWeb) -> None:
    images = np.random.default_rng(1).integers(0, 256, (85_000, 784), dtype=np.uint8)
    parameters = {"binary_data_size": images.nbytes}
    fields = {
        "name": "pixels",
        "datatype": "UINT8",
        "shape": [85_000, 784],
        "parameters": parameters,
    }
    head = json.dumps({"inputs": [fields], "parameters": {"binary_data_output": True}}).encode()
    body = head + images.tobytes()
    assert 63 * MIB < len(body) < 64 * MIB
    reply = web.post(INFER, body, headers={SIZE: str(len(head))})
    assert reply.status == 200, reply.body[:200]
    found = np.frombuffer(reply.body[int(reply.headers[SIZE]) :], "<f4")
    assert np.array_equal(found, client.predict(images).probabilities)


def test_the_servers_limit_of_a_message_is_413(client: Client, web: LocalWeb) -> None:
    count = 64 * MIB // 784 // 4
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "pixels",
                    "datatype": "FP32",
                    "shape": [count, 784],
                    "parameters": {"binary_data_size": count * 784 * 4, "x": "y" * 3_000},
                }
            ],
        }
    ).encode()
    del client
    reply = web.post(INFER, head + bytes(count * 784 * 4), headers={SIZE: str(len(head))})
    assert (reply.status, reply.json["reason"]) == (413, "MESSAGE_TOO_LARGE")


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(
    ("size", "headers"), [(JSON_MAX + 1, {}), (64 * MIB + 1, {SIZE: "10"})], ids=["JSON", "binary"]
)
def test_a_body_that_is_too_large_is_413(
    web: LocalWeb, size: int, headers: dict[str, str], is_chunked: bool
) -> None:
    body: Any = b"x" * size
    all_headers = {"Content-Type": "application/json", **headers}
    connection = http.client.HTTPConnection(web.address, timeout=20)
    content = (body[start : start + MIB] for start in range(0, size, MIB)) if is_chunked else body
    connection.request("POST", INFER, content, all_headers, encode_chunked=is_chunked)
    response = connection.getresponse()  # though the client sends all of the body before
    assert response.status == 413
    assert json.loads(response.read())["error"] == (
        f"the body is too large; must be at most {64 * MIB if headers else JSON_MAX:,} bytes"
    )
    connection.request("GET", "/v2/health/live")  # the connection can be used again
    assert connection.getresponse().status == 200
    connection.close()


def raw(web: LocalWeb, content: bytes, path: str = INFER, length: int = 1_000_000) -> socket.socket:
    """Send the headers of a request and a part of its body."""
    host, _, port = web.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {web.address}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def test_bodies_that_are_never_sent_are_forgotten(web: LocalWeb) -> None:
    files = Vitals.of_family(web.process.pid).files
    for path in (INFER, STREAM, "/mnist37.v1.Mnist37Service/GetLoss"):
        for _ in range(20):
            raw(web, b'{"inputs":', path).close()
    deadline = time.monotonic() + 10
    while Vitals.of_family(web.process.pid).files > files:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert web.get("/v2/health/ready").status == 200


class HastyWeb(LocalWeb):
    """A web that waits half a second where others wait 10 s and more."""

    command = (
        *(sys.executable, "-P", "-c"),
        "from mnist37_web.access import bodies\n"
        "from mnist37_web.listening import connections\n"
        "bodies.SECONDS_MAX = bodies.IDLE_SECONDS = connections.HEADERS_SECONDS = 0.5\n"
        "from mnist37_web.command import start; start()",
    )


@pytest.fixture(scope="module")
def hasty(address: str) -> Iterator[LocalWeb]:
    with HastyWeb(address) as web:
        yield web


@pytest.mark.parametrize("path", [INFER, STREAM, "/mnist37.v1.Mnist37Service/GetLoss"])
def test_a_slow_body_ends(hasty: LocalWeb, path: str) -> None:
    with raw(hasty, b'{"inputs":', path) as connection:
        reply = b"".join(iter(lambda: connection.recv(4096), b""))  # until web closes it
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in reply


def test_the_rest_of_a_body_that_was_answered_does_not_come_for_ever(hasty: LocalWeb) -> None:
    with raw(hasty, b"x" * 100, "/v2/nothing", 10 * MIB) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        start = time.monotonic()
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            trickle(connection)
        assert time.monotonic() - start < 5


def trickle(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"x")
        time.sleep(0.1)


def test_bodies_together_are_limited(web: LocalWeb) -> None:
    # Three hold 61 MiB and wait; the fourth is one too many. Some MiB of theirs may still be in the
    # system's buffers, so it sends far more than there is room for.
    connections = []
    for _ in range(4):
        host, _, port = web.address.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.sendall(
            (
                f"POST {INFER} HTTP/1.1\r\nHost: {web.address}\r\n{SIZE}: 10\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {62 * MIB}\r\n\r\n"
            ).encode()
        )
        connections.append(connection)
    for connection in connections[:3]:
        connection.sendall(bytes(61 * MIB))
    connections[3].sendall(bytes(45 * MIB))
    reply = b""
    while b"too many" not in reply:
        reply += connections[3].recv(4096)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in reply
    assert b"too many large bodies" in reply
    assert web.get("/v2/health/ready").status == 200
    # Where large bodies hold all that they may, there is room for small ones all the same.
    connections[3].close()
    connections.append(raw(web, bytes(8 * MIB - 1), length=8 * MIB))
    connections.append(raw(web, bytes(MIB - 100), length=MIB))
    wait_until(lambda: web.post(INFER, bytes(100_000)).status == 503)
    small = b"{" + b" " * 200 + b"}"
    assert web.post("/mnist37.v1.Mnist37Service/GetModel", small).status == 200
    for connection in connections:
        connection.close()
    wait_until(lambda: web.post(INFER, bytes(64 * MIB), headers={SIZE: "10"}).status == 400)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
