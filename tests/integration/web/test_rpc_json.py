"""Tests of mnist37.v1 as JSON: every method, by one mapping, with limits."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from support.local_web import LocalWeb, Reply

IMAGES, LABELS = validation_images()
SERVICE = "/mnist37.v1.Mnist37Service/"


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


PIXELS = encode(IMAGES[:3].tobytes())
BATCH = {"pixels": PIXELS, "labels": encode(LABELS[:3].tobytes())}
MODEL = {"weights": encode(bytes(3136)), "bias": 0.5}
# A request for each method, in an order in which all of them succeed.
REQUESTS: dict[str, dict[str, Any]] = {
    "Initialize": {"seed": "7", "std": 0.5},
    "Train": {"epochs": 2, "learningRate": 1.0, "name": "a run"},
    "Step": {"batch": BATCH, "learning_rate": 0.5},
    "Predict": {"pixels": PIXELS},
    "PredictStream": {"pixels": PIXELS},
    "GetLoss": {"split": "SPLIT_VALID"},
    "GetModel": {},
    "TagVersion": {"name": "a-tag"},
    "ListTags": {},
    "DeleteTag": {"name": "a-tag"},
    "ListVersions": {"limit": 3},
    "Restore": {"version": "1"},
    "Import": MODEL,
    "ListRuns": {"states": ["RUN_STATE_FINISHED"], "pageSize": 1},
    "WatchRun": {"run": 1},
    "ListFollowers": {},
}


def test_every_method_is_there(server: LocalServer) -> None:
    methods = {
        method.name: method for method in pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods
    }
    assert REQUESTS.keys() == methods.keys() - {"Follow"}  # it does not end; it is below
    with LocalWeb(server.address) as web:
        for name, request in REQUESTS.items():
            reply = web.call(name, request)
            assert reply.status == 200, (name, reply.body)
            kind = methods[name].output_type
            for line in reply.lines:
                message = json_format.ParseDict(line, getattr(pb, kind.name)())
                assert isinstance(message.SerializeToString(), bytes)
            is_stream = methods[name].server_streaming
            assert reply.headers["Content-Type"] == (
                "application/x-ndjson" if is_stream else "application/json"
            )
            assert web.request("GET", SERVICE + name).status == 405


def test_the_answers_are_those_of_the_client(client: Client, web: LocalWeb) -> None:
    client.train(epochs=3).wait()
    expected = client.predict(IMAGES[:3])
    answer = web.call("Predict", {"pixels": PIXELS}).json
    assert np.array(answer["probabilities"], np.float32).tolist() == expected.probabilities.tolist()
    assert int(answer["version"]) == expected.version
    loss = web.call("GetLoss", {"split": "SPLIT_VALID"}).json
    assert loss["accuracy"] == client.get_loss("valid").accuracy
    assert web.call("GetModel").json["digest"] == client.get_model().digest


def test_zeros_are_written(server: LocalServer) -> None:
    with LocalWeb(server.address) as web:
        assert web.call("GetModel").json["version"] == "0"
        assert web.call("ListTags").json == {"tags": []}


def test_a_write_happens_once(client: Client, web: LocalWeb) -> None:
    first = web.call("Step", {"requestId": "a step"})
    assert web.call("Step", {"requestId": "a step"}).json == first.json
    assert client.get_model().version == int(first.json["version"])
    other = web.call("Step", {"requestId": "a step", "learningRate": 0.5})
    assert (other.status, other.json["code"]) == (409, "ALREADY_EXISTS")


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [
        ("GetLoss", b"", 400, "the body is no GetLossRequest: Failed to load JSON"),
        ("GetLoss", b" []", 400, "the body is not a JSON object"),
        ("Step", b'""', 400, "the body is not a JSON object"),
        ("Step", b"null", 400, "the body is not a JSON object"),
        ("GetLoss", b"{", 400, "Failed to load JSON"),
        ("GetLoss", b'{"splits":1}', 400, "'splits': unknown; must be split, batch, version"),
        ("GetLoss", b'{"split":"SPLIT_X"}', 400, "SPLIT_X"),
        ("GetLoss", b'{"split":1,"split":2}', 400, "duplicate key split"),
        ("GetLoss", b'{"split":1,"batch":{}}', 400, "should not have multiple"),
        ("GetLoss", b'{"split":"\\ud800"}', 400, "split: got '\\ud800'; must be SPLIT_UNSPECIFIED"),
        ("GetLoss", b'{"\\ud800":1}', 400, "'\\ud800': unknown; must be split, batch"),
        ("GetLoss", b'{"version":-1}', 400, "version: got -1; must be a whole number from 0 to"),
        ("GetLoss", b'{"version":18446744073709551616}', 400, "version: got 18446744073709551616;"),
        ("GetLoss", b'{"version":1.5}', 400, "version: got 1.5; must be a whole number"),
        ("GetLoss", b'{"version":true}', 400, "version: got true; must be a whole number"),
        ("GetLoss", b'{"version":[]}', 400, "version: got a list of 0; must be a whole number"),
        ("GetLoss", b'{"version":' + b"9" * 5000 + b"}", 400, "a number has too many digits"),
        ("GetLoss", b'{"batch":{"pixels":"?"}}', 400, "batch.pixels"),
        ("GetLoss", b'{"batch":{"pixels":"a"}}', 400, "batch.pixels: got 'a'; must be base64"),
        ("GetLoss", b'{"batch":[null]}', 400, "batch: got a list of 1; must be an object"),
        ("GetLoss", b'{"tag":"\\ud800"}', 400, "tag: got '\\ud800'; must be a text"),
        ("Train", b'{"coalesce":1}', 400, "coalesce: got 1; must be true or false"),
        ("Follow", b'{"minInterval":1}', 400, 'minInterval: got 1; must be a duration, as "0.5s"'),
        ("ListRuns", b'{"states":[1e999]}', 400, "states: got a list of 1; must be a list, each"),
        ("GetLoss", b'{"tag":"\xff"}', 400, "not UTF-8"),
        ("GetLoss", b'{"a":' * 50 + b"1" + b"}" * 50, 400, "the body is no GetLossRequest"),
        ("GetLoss", b'{"a":' * 101, 400, "the body has 101 objects; must be at most 100"),
        ("GetLoss", b"[" * 101, 400, "the body has 101 lists; must be at most 100"),
        ("ListRuns", b'{"states":[' + b"1," * 1001 + b"1]}", 400, "has 1,001 values; must be at"),
        ("Initialize", b'{"std":NaN}', 400, "std"),
        ("Initialize", b'{"std":"Infinity"}', 400, "std: got inf"),
        ("Initialize", b'{"std":1e400}', 400, "std"),
        ("Train", b'{"epochs":0}', 400, "epochs: got 0; must be 1 to 1,000,000"),
        ("Train", b"{}", 400, "epochs"),
        ("Predict", b"{}", 400, "pixels: got 0 bytes"),
        ("GetModel", b'{"version":"999999"}', 404, "999999 is not retained"),
        ("WatchRun", b'{"run":999999}', 404, "999999"),
        ("Step", b"x" * (8 * 2**20 + 1), 413, "must be at most 8,388,608 bytes"),
        ("Nothing", b"{}", 404, "not found"),
    ],
)
def test_a_wrong_request(web: LocalWeb, method: str, body: bytes, status: int, text: str) -> None:
    reply = web.post(SERVICE + method, body)
    assert reply.status == status, reply.body
    assert text in reply.json["error"]
    assert "\n" not in reply.json["error"]


def test_a_message_of_8_mib_is_read_and_does_not_hold_others(client: Client, web: LocalWeb) -> None:
    pixels = np.tile(IMAGES[:100].reshape(-1), 75)
    content = json.dumps({"pixels": encode(pixels.tobytes())}).encode()
    assert 7e6 < len(content) < 8 * 2**20
    answer = web.post(SERVICE + "Predict", content).json
    assert len(answer["probabilities"]) == 7500
    expected = client.predict(IMAGES[:100]).probabilities
    assert np.array(answer["probabilities"][-100:], np.float32).tolist() == expected.tolist()


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "inf", "nan", "86401", "1s"])
def test_a_wrong_timeout(web: LocalWeb, seconds: str) -> None:
    reply = web.call("GetModel", headers={"X-Timeout-Seconds": seconds})
    assert reply.status == 400
    assert reply.json["error"].startswith(f"X-Timeout-Seconds: got '{seconds}'; must be above 0")


@pytest.fixture
def busy(client: Client, address: str) -> Any:
    """Begin a run that takes all of the writer until the end of the test."""
    with Client(address) as other:
        run = other.train(1_000_000)
        next(iter(run))
        yield run
        run.cancel()
    while client.runs(limit=1)[0].state == "running":
        time.sleep(0.01)


@pytest.mark.usefixtures("busy")
def test_a_call_ends_after_its_timeout(web: LocalWeb) -> None:
    start = time.monotonic()
    reply = web.call("Initialize", headers={"X-Timeout-Seconds": "0.3"})
    assert (reply.status, reply.json["code"]) == (504, "DEADLINE_EXCEEDED")
    assert 0.2 < time.monotonic() - start < 5
    reply = web.call("Train", {"epochs": 1}, headers={"X-Timeout-Seconds": "0.3"})
    assert (reply.status, reply.json["code"]) == (504, "DEADLINE_EXCEEDED")


class Stream:
    """A call whose body is sent, and whose answer is read, piece by piece."""

    def __init__(self, web: LocalWeb, method: str) -> None:
        self.connection = http.client.HTTPConnection(web.address, timeout=20)
        self.connection.putrequest("POST", SERVICE + method)
        self.connection.putheader("Content-Type", "application/x-ndjson")
        self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.endheaders()
        # Python's client would open another one when a reply says that it closes this one.
        self.socket: socket.socket = self.connection.sock

    def send(self, content: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def close(self) -> None:
        self.connection.close()


def test_a_run_stops_when_its_client_leaves(client: Client, web: LocalWeb) -> None:
    connection = http.client.HTTPConnection(web.address, timeout=20)
    body = json.dumps({"epochs": 1_000_000}).encode()
    connection.request("POST", SERVICE + "Train", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert json.loads(response.readline())["epoch"] == 1
    assert client.runs(limit=1)[0].state == "running"
    response.close()
    connection.close()
    wait_until(lambda: client.runs(limit=1)[0].state == "interrupted")


@pytest.mark.usefixtures("busy")
def test_a_write_that_waits_ends_when_its_client_leaves(client: Client, web: LocalWeb) -> None:
    connection = http.client.HTTPConnection(web.address, timeout=20)
    body = json.dumps({"epochs": 5, "name": "abandoned"}).encode()
    connection.request("POST", SERVICE + "Train", body, {"Content-Type": "application/json"})
    wait_until(lambda: [run.name for run in client.runs(state="queued")] == ["abandoned"])
    connection.close()
    wait_until(lambda: not client.runs(state="queued"))


def test_the_answer_comes_while_the_body_is_sent(client: Client, web: LocalWeb) -> None:
    expected = client.predict(IMAGES[:3]).probabilities.tolist()
    stream = Stream(web, "PredictStream")
    line = json.dumps({"pixels": PIXELS}).encode() + b"\n"
    stream.send(line[:100])
    stream.send(line[100:])
    response = stream.connection.getresponse()  # its headers come with the first answer
    for _ in range(3):
        answer = json.loads(response.readline())
        assert np.array(answer["probabilities"], np.float32).tolist() == expected
        stream.send(b"\n" + line)
    stream.send(b"\n{}\n" + line)  # a wrong line ends the stream, after the answers before it
    lines = [json.loads(line) for line in response.read().splitlines()]
    assert len(lines) == 2
    assert "pixels: got 0 bytes" in lines[-1]["error"]
    stream.close()


def test_a_line_that_is_no_message_ends_the_stream(web: LocalWeb) -> None:
    line = json.dumps({"pixels": PIXELS}).encode()
    reply = web.post(SERVICE + "PredictStream", line + b"\n" + line + b'\n{"a":1}\n' + line)
    assert reply.status == 200
    *answers, last = reply.lines
    assert len(answers) == 2
    assert "'a': unknown; must be pixels" in last["error"]
    assert last["reason"] == "INVALID_REQUEST"
    # Before the first answer, an error has a status.
    assert web.post(SERVICE + "PredictStream", b'{"a":1}\n' + line).status == 400
    for _ in range(20):  # the server ends the call while web has more to send
        assert web.post(SERVICE + "PredictStream", b"{}\n" + (line + b"\n") * 20).status == 400
    assert web.post(SERVICE + "PredictStream", b"x" * (8 * 2**20 + 1)).status == 413


def test_a_stream_without_lines_has_no_answers(web: LocalWeb) -> None:
    reply = web.post(SERVICE + "PredictStream", b"\n \n")
    assert (reply.status, reply.body) == (200, b"")


def test_a_stream_ends_when_its_client_leaves() -> None:
    with (
        LocalServer("--device", "cpu", "--max-streams", "2") as server,
        LocalWeb(server.address) as own,
    ):
        for _ in range(5):
            stream = Stream(own, "PredictStream")
            stream.send(json.dumps({"pixels": PIXELS}).encode() + b"\n")
            assert stream.connection.getresponse().status == 200
            stream.socket.close()
            stream.close()
            wait_until(lambda: own.call("PredictStream", {"pixels": PIXELS}).status == 200)


def test_follow_goes_on_until_the_client_leaves(client: Client, web: LocalWeb) -> None:
    connection = http.client.HTTPConnection(web.address, timeout=20)
    body, headers = b'{"id":"","minInterval":"0.1s"}', {"Content-Type": "application/json"}
    connection.request("POST", SERVICE + "Follow", body, headers)
    response = connection.getresponse()
    first = json.loads(response.readline())
    assert len(base64.b64decode(first["parameters"])) == 785 * 4
    version = client.step().version
    while int(json.loads(response.readline())["position"]["version"]) < version:
        pass
    connection.close()
    response.close()


def test_an_error_after_the_first_line_is_the_last_line(server: LocalServer) -> None:
    with LocalWeb(server.address) as web:
        replies: list[Reply] = []
        thread = threading.Thread(
            target=lambda: replies.append(web.call("Train", {"epochs": 1_000_000}))
        )
        thread.start()
        with Client(server.address) as client:
            wait_until(lambda: client.get_model().version > 1000)
        server.stop()
        thread.join(20)
    (reply,) = replies
    assert reply.status == 200
    assert reply.lines[0]["epoch"] == 1
    last = json.loads(reply.body.splitlines()[-1])
    assert (last["code"], last["reason"]) == ("UNAVAILABLE", "SHUTTING_DOWN")


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
