"""Tests of what stands between client and server: web servers, proxies, and their variables."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from mnist37_client import (
    Cancelled,
    Client,
    Exhausted,
    InvalidResponse,
    Mnist37Error,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from mnist37_client._rpc.failures.asyncio_errors import translate_errors
from mnist37_client.local_server import LocalServer
from support.both_clients import IMAGES, AnyClient, MakeClient
from support.raw_http2 import RawServer, http_answer, reset
from support.relay import Relay

CALLS: dict[str, Callable[[AnyClient], object]] = {
    "predict": lambda client: client.predict(IMAGES[0]),
    "predict_stream": lambda client: list(client.predict_stream([IMAGES[0]])),
    "step": lambda client: client.step(),
    "train": lambda client: client.train(1).wait(),
    "watch_run": lambda client: list(client.watch_run()),
}


@pytest.fixture(scope="module")
def web_server() -> Iterator[RawServer]:
    with RawServer(http_answer(502)) as server:
        yield server


STATUSES: dict[int, type[Mnist37Error]] = {
    **dict.fromkeys([302, 400, 404, 408, 429, 500, 502, 503, 504], Unavailable),
    401: Unauthenticated,
    403: PermissionDenied,
    413: Exhausted,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_http_status_is_named(
    make: MakeClient, web_server: RawServer, call: Callable[[AnyClient], object]
) -> None:
    client = make(web_server.address, timeout=5)
    is_stream = call not in (CALLS["predict"], CALLS["step"])
    for status, kind in STATUSES.items():
        web_server.answer = http_answer(status)
        # Of a stream, gRPC may lose the status.
        kinds = (kind, Unavailable, InvalidResponse) if is_stream else kind
        with pytest.raises(kinds) as caught:
            call(client)
        if type(caught.value) is kind and not (is_stream and kind is Unavailable):
            assert f"a web server or proxy answered HTTP {status}: " in str(caught.value)
            assert caught.value.reason == ("MESSAGE_TOO_LARGE" if status == 413 else None)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_reset_is_named(
    make: MakeClient, web_server: RawServer, call: Callable[[AnyClient], object]
) -> None:
    client = make(web_server.address, timeout=5)
    for code in (0, 1, 2, 3, 6, 7, 8, 9, 11, 12, 13):
        web_server.answer = reset(code)
        with pytest.raises(Unavailable) as caught:
            call(client)
        if code not in (7, 8) and call is CALLS["step"]:  # gRPC has texts of its own for these two
            assert f"reset on its way: HTTP/2 error {code};" in str(caught.value)


@pytest.mark.parametrize("call", [CALLS["step"], CALLS["train"]])
@pytest.mark.parametrize(
    "wrong",
    [http_answer(502), http_answer(503), reset(2), reset(8)],
    ids=["502", "503", "reset 2", "reset 8"],
)
def test_a_proxy_without_its_server_is_asked_again(
    make: MakeClient,
    web_server: RawServer,
    call: Callable[[AnyClient], object],
    wrong: Callable[[int], bytes],
) -> None:
    answers = [http_answer(403), wrong, wrong]  # the last one first
    client = make(web_server.address, timeout=5, retry_for=5)
    policy = client._retry_policy if isinstance(client, Client) else client.client._retry_policy
    policy.connected = True  # as after a first answer

    def answer(stream: int) -> bytes:
        return (answers.pop() if answers else http_answer(403))(stream)

    web_server.answer = answer
    with pytest.raises(Mnist37Error):
        call(client)
    assert not answers


# --- nginx


@pytest.fixture
def nginx(tmp_path: Path, server: LocalServer) -> Iterator[str]:
    """Start nginx with its defaults in front of a server, and return its address."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {tmp_path};" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {paths} server {{ listen {address} http2;"
        f" location / {{ grpc_pass grpc://{server.address}; }} }} }}"
    )
    log = tmp_path / "log"
    process = subprocess.Popen([program, "-c", tmp_path / "nginx.conf", "-e", log])
    while True:
        with socket.socket() as attempt:
            if not attempt.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))):
                break
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def test_nginx(make: MakeClient, nginx: str, server: LocalServer) -> None:
    client = make(nginx, timeout=10, retry_for=1)
    assert len(client.predict(IMAGES[:1000]).probabilities) == 1000
    with pytest.raises(Exhausted, match="HTTP 413: the message is too large for it") as caught:
        client.predict(np.full((2000, 784), 255, np.uint8))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert client.train(20).wait().epoch == 20
    # 2.3 MB: nginx cuts the stream at 1 MB, and another stream continues it.
    assert len(list(client.predict_stream(IMAGES[0] for _ in range(3000)))) == 3000
    server.stop()
    with pytest.raises(Unavailable, match="HTTP 502: it reaches no mnist37 server"):
        client.step()


# --- the proxy of the environment


def proxy(answer: bytes) -> tuple[str, socket.socket]:
    """Start a proxy that answers each connection so; return its HOST:PORT and its listener."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}", listener


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


VARIABLES = ["grpc_proxy", "https_proxy", "http_proxy"]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "[::ffff:127.0.0.1]", "127.0.0.2"]
)
def test_this_machine_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, make: MakeClient, address: str, host: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    here = f"{host}:{address.rpartition(':')[2]}"
    if host == "127.0.0.2":  # where no server listens
        with pytest.raises(Unavailable, match=f"no server listens at {here}; is the server"):
            make(here).get_model()
    else:
        assert make(here).get_model().version >= 0


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answered HTTP 403"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it answered HTTP 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "it answered HTTP 502"),
        (b"", "Socket closed"),
        (None, "Connection refused"),
    ],
)
def test_a_proxy_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
    make: MakeClient,
    variable: str,
    answer: bytes | None,
    reason: str,
) -> None:
    endpoint, listener = proxy(answer or b"")
    if answer is None:
        listener.shutdown(socket.SHUT_RDWR)
    monkeypatch.setenv(variable, f"http://user:secret@{endpoint}")
    with listener, pytest.raises(Unavailable, match=reason) as caught:
        make("far.example:50051", timeout=5).get_model()
    text = str(caught.value)
    assert text.startswith(f"far.example:50051: no connection through the proxy {endpoint}, which ")
    assert f"{variable} names: {reason}; no_proxy=far.example goes around it" in text
    assert "secret" not in text
    listener.close()


class Tunnel:
    """A proxy that passes each connection on to one server, wherever it is asked to."""

    def __init__(self, address: str) -> None:
        self._relay = Relay(address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._relay.__exit__()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                assert client.recv(4096).startswith(b"CONNECT ")
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                self._relay.connect(client)


def test_a_server_is_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, make: MakeClient, address: str
) -> None:
    with Tunnel(address) as tunnel:
        monkeypatch.setenv("https_proxy", f"http://{tunnel.address}")
        client = make("far.example:50051", timeout=10)
        assert client.get_model().version >= 0
        client.close()


def test_a_failed_handshake_through_the_proxy_is_not_blamed_on_it(
    monkeypatch: pytest.MonkeyPatch, make: MakeClient, pki: Path
) -> None:
    certificate = ("--tls-cert", str(pki / "server.pem"), "--tls-key", str(pki / "server.key"))
    with LocalServer("--device", "cpu", *certificate) as server, Tunnel(server.address) as tunnel:
        monkeypatch.setenv("https_proxy", f"http://{tunnel.address}")
        client = make("far.example:50051", timeout=10, tls_ca=pki / "other-ca.pem")
        with pytest.raises(Unauthenticated, match="certificate is not trusted"):
            client.get_model()
        client.close()


def test_without_its_proxy_an_unknown_host_is_not_blamed_on_it(
    monkeypatch: pytest.MonkeyPatch, make: MakeClient
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "far.example")
    with pytest.raises(Unavailable, match="far") as caught:
        make("far.example:50051", timeout=5).get_model()
    assert "proxy" not in str(caught.value)


def test_the_command_prints_one_line_for_a_proxy_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, listener = proxy(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"http://{endpoint}")
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    for command in ("health", "model"):
        ended = subprocess.run(
            [sys.executable, "-m", "mnist37_client.cli", command, "--address", "far.example:1"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 3
        assert ended.stderr.startswith("mnist37: far.example:1: no connection through the proxy")
        assert ended.stderr.count("\n") == 1
    listener.close()


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_call_that_grpc_cancels_by_itself_is_no_closed_client(is_closed: bool) -> None:
    # grpc.aio does so if the server ends a stream while the client sends, at an unlucky moment.
    async def cancelled_by_grpc() -> None:
        with translate_errors("127.0.0.1:9", lambda: is_closed):
            raise asyncio.CancelledError

    text = "the client was closed" if is_closed else "ended the stream before all was sent"
    with pytest.raises(Cancelled if is_closed else Unavailable, match=text):
        asyncio.run(cancelled_by_grpc())
