"""Tests of what a native front adds to a server: it reads on alone, and ends in order."""

from __future__ import annotations

import codecs
import http.client
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mnist37_client import (
    Client,
    NotOwner,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    validation_images,
)
from mnist37_client.local_server import LocalServer
from mnist37_client.processes import python_process
from mnist37_client.processes.local_process import LocalProcess
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server.services.health import WATCHES_MAX
from support.following import FailedCall
from support.fronted import Front, FrontedServer, is_serving
from support.guarding import secret, token_file, tokens_file
from support.scraping import Scrape, wait_until

IMAGES, LABELS = validation_images()
SERVING = health_pb2.HealthCheckResponse.SERVING
PREDICT = "/mnist37.v1.Mnist37Service/Predict"


def ready(front: LocalProcess) -> Client:
    """Return a client of a front, when it has a version."""
    assert wait_until(lambda: is_serving(front), 30)
    return Client(front.address, timeout=10)


@pytest.fixture
def front(server: LocalServer) -> Iterator[Front]:
    with Front(server.address) as front, ready(front):
        yield front


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer("--device", "cpu") as server:
        yield server


def test_an_answer_has_the_owners_bits_and_follows_its_versions(
    server: LocalServer, front: Front
) -> None:
    with Client(server.address) as owner, Client(front.address) as client:
        for _ in range(3):
            version = client.step().version
            seen = client.predict(IMAGES)
            assert seen.version >= version  # the client's floor: it never sees an older version
            exact = owner.predict(IMAGES, version=seen.version)
            assert seen.probabilities.tobytes() == exact.probabilities.tobytes()


def test_reads_go_on_while_the_owner_is_away_and_writes_say_when_to_try_again(
    server: LocalServer, front: Front
) -> None:
    with Client(front.address, retry_for=0, timeout=10) as client:
        before = client.predict(IMAGES[:5])
        server.kill()
        for _ in range(20):
            assert client.predict(IMAGES[:5]).version == before.version
        with pytest.raises(Unavailable, match="cannot reach the owner"):
            client.step()
    stub = mnist37_pb2_grpc.Mnist37ServiceStub
    with grpc.insecure_channel(front.address) as channel, pytest.raises(grpc.RpcError) as failed:
        stub(channel).Step(pb.StepRequest(), timeout=10)
    refused = FailedCall(failed.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OWNER_UNREACHABLE")
    assert (refused.metadata, refused.retry_after) == ({"owner": server.address}, 1)


def test_a_front_may_call_a_follower_and_be_followed(server: LocalServer) -> None:
    with (
        LocalServer("--follow", server.address) as middle,
        Front(middle.address) as front,
        LocalServer("--follow", front.address) as leaf,
        Client(server.address) as owner,
    ):
        version = owner.step().version
        with ready(front) as client:
            assert wait_until(lambda: client.predict(IMAGES[:1]).version == version, 30)
            with pytest.raises(NotOwner, match=server.address):
                client.step()
        with ready(leaf) as client:
            assert wait_until(lambda: client.predict(IMAGES[:1]).version == version, 30)
            with Client(middle.address) as followed:
                addresses = [known.address for known in followed.followers()]
            assert leaf.address in addresses, "the front passes Follow on"


def test_the_page_and_the_http_api_are_on_the_same_port_and_predict_without_the_owner(
    server: LocalServer, front: Front
) -> None:
    base = f"http://{front.address}"
    with urllib.request.urlopen(base) as page:
        assert "mnist37" in page.read().decode()
    pixels = IMAGES[0].reshape(1, 784).tolist()
    body = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 784], "data": pixels}]}
    request = urllib.request.Request(
        f"{base}/v2/models/mnist37/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with Client(server.address) as owner:
        expected = owner.predict(IMAGES[:1]).probabilities[0]
    server.kill()
    with urllib.request.urlopen(request) as answer:
        (probability,) = json.load(answer)["outputs"][0]["data"]
    assert probability == pytest.approx(expected, abs=1e-7)


def test_a_killed_launcher_ends_envoy_and_the_owner_and_the_next_one_deletes_its_folder(
    short_folder: Path,
) -> None:
    with FrontedServer() as server:
        port = int(server.address.rpartition(":")[2])
        (left,) = short_folder.iterdir()
        server.kill()
        assert wait_until(lambda: not listens(port), 5)
    with FrontedServer():
        assert not left.exists()
    assert not list(short_folder.iterdir())


def listens(port: int) -> bool:
    """Return whether a process listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_caller_that_sends_nothing_of_its_message_is_ended_in_time(server: LocalServer) -> None:
    with (
        Front(server.address, "--message-timeout", "1") as front,
        ready(front),
        grpc.insecure_channel(front.address) as channel,
    ):
        messages: SimpleQueue[bytes] = SimpleQueue()  # to which nothing comes
        call: Any = channel.stream_unary(PREDICT)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError):
            call(iter(messages.get, b""), timeout=20)
        messages.put(b"")
        assert time.monotonic() - began < 5


def test_open_watches_of_the_health_keep_no_other_call_waiting(front: Front) -> None:
    """Each client with replicas has a watch open at each of them, and none needs a token."""
    request = health_pb2.HealthCheckRequest()
    with grpc.insecure_channel(front.address) as channel, ready(front) as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = [watch(request, timeout=60) for _ in range(WATCHES_MAX)]
        assert {next(each).status for each in watches} == {SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(request, timeout=20))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # taken for "not watched"
        assert len(client.predict(IMAGES[:1_400]).digits) == 1_400  # so large: on a thread
        for each in watches:
            each.cancel()


def test_two_fronts_cannot_have_one_port(server: LocalServer, front: Front) -> None:
    with pytest.raises(Unavailable, match="the port is in use; name another HOST:PORT"):
        Front(server.address, "--address", front.address)


def test_a_front_beyond_this_machine_needs_protection(server: LocalServer) -> None:
    with pytest.raises(Unavailable, match="--tls-cert and --tls-key"):
        Front(server.address, "--address", "0.0.0.0:0")


def test_a_wrong_owner_is_named_by_the_fronts_own_flag() -> None:
    with pytest.raises(Unavailable, match="--owner: got 'nonsense'") as refused:
        Front("nonsense")
    assert "--follow" not in str(refused.value)


def test_an_owner_with_tokens_needs_them_at_the_front_too(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 40)
    with pytest.raises(Unavailable, match="--tokens: missing; the owner asks for tokens"):
        Front("127.0.0.1:1", "--owner-token-file", str(tmp_path / "token"))


def test_a_front_loads_no_torch(front: Front) -> None:
    maps = subprocess.run(
        ["pgrep", "--parent", str(front.process.pid)], capture_output=True, text=True, check=True
    )
    for pid in maps.stdout.split():
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_call_without_a_valid_token_never_reaches_the_owner(tmp_path: Path) -> None:
    tokens = str(tokens_file(tmp_path / "tokens", "predict", "follow", "train"))
    guards = ("--tokens", tokens)
    with (
        LocalServer("--device", "cpu", "--metrics-address", "127.0.0.1:0", *guards) as server,
        Front(
            server.address, *guards, "--owner-token-file", str(token_file(tmp_path, "follow"))
        ) as front,
    ):
        metrics = metrics_of(server)
        assert wait_until(lambda: is_serving(front), 30)
        refusals = {
            None: (Unauthenticated, "TOKEN_MISSING"),
            "unknown": (Unauthenticated, "TOKEN_INVALID"),
            secret("predict"): (PermissionDenied, "ROLE_INSUFFICIENT"),
        }
        for token, (kind, reason) in refusals.items():
            with (
                Client(front.address, token=token, retry_for=0) as client,
                pytest.raises(kind) as refused,
            ):
                client.step()
            assert refused.value.reason == reason
        assert Scrape(metrics).codes("Step") == {}
        with Client(front.address, token=secret("train")) as client:
            client.step()
        assert Scrape(metrics).codes("Step") == {"OK": 1}


def test_an_owner_that_lets_nobody_follow_is_refused() -> None:
    with pytest.raises(Unavailable, match="--max-followers 0 cannot be used with --front"):
        FrontedServer("--device", "cpu", "--max-followers", "0")


def test_the_callers_of_the_owner_get_its_last_words_at_the_end() -> None:
    with FrontedServer("--device", "cpu") as server, Client(server.address, retry_for=0) as client:
        run = client.train(epochs=1_000_000)
        next(iter(run))
        status, log = server.stop()
        with pytest.raises(Unavailable) as ended:
            run.wait()
    assert ended.value.reason == "SHUTTING_DOWN"
    assert status == 0
    assert "WARNING" not in log
    assert "ERROR" not in log


SLOW_OWNER = """
import sys, time
if "mnist37_server" in sys.orig_argv:
    print("loading", file=sys.stderr, flush=True)
    time.sleep(120)
"""


def test_a_signal_while_the_owner_starts_ends_both_at_once(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_OWNER)
    with subprocess.Popen(
        [*FrontedServer.command, "--address", "127.0.0.1:0", "--state", ":memory:"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading\n"
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""  # it is closed: the owner has ended too


# Of pyvoy, of the standard library and of ours.
SHADOWED = ("pyvoy", "pyqwest", "random", "uvloop", "starlette", "orjson", "mnist37_front")


def test_a_front_uses_files_of_the_current_folder_and_imports_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in SHADOWED:
        (tmp_path / f"{module}.py").write_text("raise SystemExit(f'imported {__file__}')")
    tokens_file(tmp_path / "tokens", "follow", "predict")
    token_file(tmp_path, "follow")
    access = ("--tokens", "tokens", "--owner-token-file", "token-follow")
    owner = "unix:owner.sock"
    with (
        LocalServer("--device", "cpu", "--address", owner, "--tokens", "tokens"),
        Front(owner, *access, "--address", "unix:front.sock") as front,
        Client("unix:front.sock", token=secret("predict")) as client,
    ):
        assert front.address == f"unix:{tmp_path}/front.sock"
        assert wait_until(lambda: is_serving(front), 60)
        assert client.predict(IMAGES[:1]).version == 0


def refusal(*command: str) -> str:
    """Return the one line with which a front or a server behind one refuses to start."""
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    return line


def test_a_front_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = (*python_process.command("mnist37_front"), "--address", "127.0.0.1:0")
    pair = (*FrontedServer.command, "--address", "127.0.0.1:0", "--device", "cpu")
    tokens = tmp_path / "tokens"
    tokens.write_text("nonsense\n")
    for command in (front, pair):
        assert f"--tokens: {tokens}, line 1: must be" in refusal(*command, "--tokens", str(tokens))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in (front, pair):
            line = refusal(*command, "--metrics-address", address)
            assert f"--metrics-address: cannot listen on {address}: the port is in use" in line
    assert "--front: it has to be a word of its own" in refusal(
        *python_process.command("mnist37_server"), "--front"
    )
    assert "--state: cannot write to /dev/null" in refusal(*pair, "--state", "/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "taken"))
        listener.listen()
        taken_file, nowhere = f"unix:{tmp_path}/taken", f"unix:{tmp_path}/none/x"
        for command in (front, pair):
            line = refusal(*command, "--address", taken_file)
            assert f"--address: another server listens on {taken_file}" in line
            line = refusal(*command, "--address", nowhere)
            assert f"--address: there is no folder {tmp_path}/none" in line
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    for command in (front, pair):
        assert f"TMPDIR: {long} is too long for the path of a socket file" in refusal(*command)


def test_a_file_of_tokens_may_come_from_windows(tmp_path: Path) -> None:
    file = tokens_file(tmp_path / "tokens", "predict")
    content = f"{file.read_text()}# caf\u00e9\n"
    file.write_bytes(codecs.BOM_UTF16_LE + content.encode("utf-16-le"))
    with FrontedServer("--device", "cpu", "--tokens", str(file)) as server:
        with Client(server.address, token=secret("predict"), retry_for=0) as client:
            assert client.predict(IMAGES[:1]).version == 0
            assert client.get_model().version == 0
        tokens_file(tmp_path / "new", "train")
        file.write_bytes(codecs.BOM_UTF16_BE + (tmp_path / "new").read_text().encode("utf-16-be"))
        with Client(server.address, token=secret("train"), retry_for=0, timeout=10) as client:
            assert wait_until(lambda: is_known(client), 20)


def is_known(client: Client) -> bool:
    """Return whether a server knows the token of a client."""
    try:
        client.get_model()
    except Unauthenticated:
        return False
    return True


def test_a_front_says_at_which_port_its_metrics_are(server: LocalServer) -> None:
    options = ("--metrics-address", "127.0.0.1:0")
    with Front(server.address, *options) as front, ready(front) as client:
        client.predict(IMAGES[:1])
        metrics = metrics_of(front)
        assert wait_until(lambda: Scrape(metrics).codes("Predict") == {"OK": 1})


def test_a_server_behind_a_front_says_at_which_port_its_metrics_are() -> None:
    options = ("--device", "cpu", "--metrics-address", "127.0.0.1:0")
    with FrontedServer(*options) as server, Client(server.address) as client:
        client.step()
        client.predict(IMAGES[:1])
        metrics = metrics_of(server)
        assert wait_until(lambda: Scrape(metrics).codes("Step") == {"OK": 1})
        assert Scrape(metrics).codes("Predict") == {}, "the front answers predictions"
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == "version 0 on cpu\n"


def metrics_of(process: LocalProcess) -> str:
    """Return the URL of the metrics that a process has told on stdout."""
    assert process.process.stdout is not None
    giving_up = threading.Timer(30, process.process.kill)  # it may never tell
    giving_up.start()
    line = process.process.stdout.readline()
    giving_up.cancel()
    assert line.startswith("metrics on http://127.0.0.1:")
    return line.split()[-1]


def test_a_connection_ends_at_its_greatest_age_and_no_call_with_it() -> None:
    alone = [("grpc.use_local_subchannel_pool", 1)]
    with (
        FrontedServer("--device", "cpu", "--max-connection-age", "1") as server,
        Client(server.address, retry_for=0, timeout=60) as client,
        grpc.insecure_channel(server.address, alone) as channel,
    ):
        run = iter(client.train(epochs=1_000_000))
        next(run)
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append, try_to_connect=True)
        deadline = time.monotonic() + 60
        # Its connection, which is older, ends after it: Envoy asks for another one 1 s after the
        # begin, and takes no more calls 5 s later.
        while grpc.ChannelConnectivity.IDLE not in states[2:]:
            next(run)
            client.predict(IMAGES[:1])
            assert time.monotonic() < deadline
        for _ in range(20):
            next(run)
            client.predict(IMAGES[:1])


def test_a_connection_of_http_1_ends_with_a_reply_at_its_greatest_age() -> None:
    with (
        FrontedServer("--device", "cpu", "--max-connection-age", "1") as server,
        closing(http.client.HTTPConnection(server.address, timeout=20)) as connection,
    ):
        connection.connect()
        deadline = time.monotonic() + 60
        while connection.sock is not None:  # closed after the reply that says so
            connection.request("GET", "/v2/health/live")
            assert json.load(connection.getresponse()) == {"live": True}
            assert time.monotonic() < deadline
