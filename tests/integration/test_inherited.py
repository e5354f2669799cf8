"""Tests of what a server inherits and is told: streams, signals, addresses, files of access."""

from __future__ import annotations

import codecs
import datetime
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from mnist37_client import Client, Mnist37Error, Unauthenticated, Unavailable, health
from mnist37_client.cli.group import commands
from mnist37_client.cli.run import COMMANDS
from mnist37_client.local_server import LocalServer
from mnist37_server.access.roles import Role
from mnist37_server.access.tokens import Tokens
from mnist37_server.command_line import main as serve
from mnist37_server.config import Config
from mnist37_server.rpc import server as rpc_server
from support.scraping import Scrape

SERVE = (sys.executable, "-P", "-m", "mnist37_server", "--device", "cpu")
CLI = (sys.executable, "-P", "-m", "mnist37_client.cli")
DAY = datetime.timedelta(days=1)


def environment(**more: str) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MNIST37_")}
    return {**rest, **more}


def refusal(*options: str, **variables: str) -> str:
    """Return the one line with which a server refuses to start."""
    finished = subprocess.run(
        [*SERVE, "--state", ":memory:", *options],
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=20,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (2, ""), finished.stderr
    (line,) = finished.stderr.splitlines()
    return line


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def until_serving(address: str, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            health.check(address)
        except Mnist37Error:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


# Streams and signals.


@pytest.mark.parametrize("redirection", ["0<&-", "2>&-", "2>/dev/full", "0<&- >&- 2>&-"])
def test_serving_does_not_depend_on_a_standard_stream(redirection: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SERVE]
    options = ["--state", ":memory:", "--address", address]
    with subprocess.Popen([*shell, *options], stdout=subprocess.DEVNULL) as process:
        until_serving(address, process)
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def hang_up_ends() -> Iterator[None]:
    """Let children have SIGHUP as it is by default: the tests may have been started by nohup."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, handler)


@pytest.mark.usefixtures("hang_up_ends")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_server_in_order(number: signal.Signals) -> None:
    with LocalServer("--device", "cpu") as server:
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
    assert f"stopping signal={number.name}" in server.stop()[1]


def test_nohup_lets_a_server_go_on() -> None:
    class Nohup(LocalServer):
        command = ("nohup", *LocalServer.command)

    with Nohup("--device", "cpu") as server:
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        health.check(server.address)
        assert server.stop()[0] == 0


@pytest.mark.usefixtures("hang_up_ends")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_start_that_waits_for_a_download_ends_at_once(
    number: signal.Signals, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:  # accepts, and never answers
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), url)
        options = ["--address", "127.0.0.1:0", "--state", ":memory:", "--download"]
        with subprocess.Popen(
            [*SERVE, *options, "--data-root", str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**proxies, no_proxy=""),
        ) as process:
            try:
                proxy.settimeout(30)
                connection, _ = proxy.accept()
                process.send_signal(number)
                assert process.wait(10) == 128 + number
            finally:
                process.kill()
            connection.close()
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()


def test_a_second_signal_cuts_the_grace_short() -> None:
    with (
        LocalServer("--device", "cpu", "--shutdown-grace", "60") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        # A call under way: its message never comes.
        waiting: Any = channel.stream_unary("/mnist37.v1.Mnist37Service/GetLoss")
        call = waiting.future(iter(lambda: time.sleep(30), 0))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        call.cancel()


def test_a_user_without_a_home_is_told_to_name_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The system knows the user of the tests: hide what it knows.
    (tmp_path / "sitecustomize.py").write_text("import pwd\npwd.getpwuid = {}.__getitem__\n")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    finished = subprocess.run(
        SERVE,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(tmp_path)),
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("mnist37 serve: --state: this user has no home folder")
    assert len(finished.stderr.splitlines()) == 1


# Addresses.


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("option", ["--address", "--metrics-address"])
def test_a_name_is_listened_to_at_all_its_addresses_or_not_at_all(option: str, taken: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((taken, 0), family=family))
        except OSError:
            pytest.skip("this machine has no IPv6")
        address = f"localhost:{listener.getsockname()[1]}"
        options = ("--address", "127.0.0.1:0") if option != "--address" else ()
        line = refusal(option, address, *options)
    assert f"{option}: cannot listen on {address}: the port is in use" in line


def test_a_free_port_is_the_same_at_all_addresses_of_a_name() -> None:
    with LocalServer("--device", "cpu", "--address", "localhost:0") as server:
        port = server.address.rpartition(":")[2]
        for address in (server.address, f"127.0.0.1:{port}", f"[::1]:{port}"):
            health.check(address)


def test_a_socket_file_is_an_address(tmp_path: Path) -> None:
    path = tmp_path / "mnist37.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # its server has ended
    with LocalServer("--device", "cpu", "--address", f"unix:{path}") as server:
        assert server.address == f"unix:{path}"
        with Client(server.address, token="secret") as client:
            assert client.train(epochs=1).wait().epoch == 1
        assert f"another server listens on unix:{path}" in refusal("--address", f"unix:{path}")
        assert health.check(server.address) == "cpu"
        assert subprocess.run([*CLI, "model", "--address", server.address], check=True)
    assert not path.exists()
    path.write_text("a file")
    assert "is a file, and not a socket" in refusal("--address", f"unix:{path}")
    assert "there is no folder" in refusal("--address", f"unix:{tmp_path}/none/x")
    assert "at most 107 bytes" in refusal("--address", f"unix:{tmp_path}/{'x' * 100}")


def test_a_relative_socket_file_in_a_folder_that_is_gone_is_refused_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    line = refusal("--address", "unix:mnist37.sock")
    assert "--address: got 'unix:mnist37.sock', and the current folder is gone" in line


# What people type, and what they probably meant.
TYPED = {
    "http://localhost:50051": "localhost:50051",
    "https://localhost:50051/": "localhost:50051",
    "grpc://localhost": "localhost:50051",
    "dns:///localhost:6000": "localhost:6000",
    " localhost:6000 ": "localhost:6000",
    "localhost": "localhost:50051",
    "localhost:": "localhost:50051",
    "::1:50051": "[::1]:50051",
    "::1": "[::1]:50051",
    "[::1]": "[::1]:50051",
    ":6000": "(0.0.0.0|127.0.0.1):6000",
    "*:6000": "(0.0.0.0|127.0.0.1):6000",
    "localhost:70000": "",
    "localhost:\u0665\u0660": "",
    "unix:": "",
    "user@localhost:1": "",
    "localhost:1/path": "",
}


@pytest.mark.parametrize(("typed", "meant"), TYPED.items(), ids=map(repr, TYPED))
def test_what_is_no_address_is_refused_with_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(Mnist37Error) as of_client:
        Client(typed)
    with pytest.raises(Mnist37Error) as of_health:
        health.check(typed)
    texts = [str(of_client.value), str(of_health.value)]
    with pytest.raises(Exception, match="--address: got ") as of_server:
        Config(typed)
    texts.append(str(of_server.value))
    for text in texts:
        assert "address: got " in text
        assert re.search(
            f"; {meant}".replace("[", r"\[") + ", for example" if meant else "must be", text
        )


@pytest.mark.parametrize("option", ["--state", "--address", "--data-root", "--tokens", "--device"])
@pytest.mark.parametrize("form", ["{} ", "{}="])
def test_an_empty_value_is_refused_and_an_empty_variable_is_none(option: str, form: str) -> None:
    assert f"{option}: got an empty value" in refusal(*form.format(option).split(" "))
    variable = "MNIST37_" + option[2:].replace("-", "_").upper()
    finished = subprocess.run(
        [*SERVE, "--state", ":memory:", "--max-rpcs", "1"],
        env=environment(**{variable: ""}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr.startswith("mnist37 serve: --max-rpcs: got 1")


def test_a_variable_has_one_meaning() -> None:
    of_server = {f"MNIST37_{option.name}".upper() for option in serve.params}
    assert COMMANDS
    of_commands = {
        option.envvar
        for command in commands.commands.values()
        for option in command.params
        if option.envvar
    }
    assert of_server & of_commands == {"MNIST37_ADDRESS"}  # where the server is, for both


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates of two authorities, valid and not."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, other = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other-ca.pem")
    now = datetime.datetime.now(datetime.UTC)
    for name, authority, begins, ends in (
        ("good", ours, -DAY, 365 * DAY),
        ("expired", ours, -2 * DAY, -DAY),
        ("future", ours, DAY, 90 * DAY),
        ("soon", ours, -DAY, 29 * DAY),
        ("stranger", other, -DAY, 365 * DAY),
    ):
        certificate = authority.issue_cert(
            "localhost", "127.0.0.1", not_before=now + begins, not_after=now + ends
        )
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


def pair(folder: Path, name: str) -> tuple[str, str]:
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


@pytest.fixture(scope="module")
def closed(certificates: Path) -> Iterator[LocalServer]:
    """Return a server with TLS that requires a certificate of its callers, of another authority."""
    certificate, key = pair(certificates, "good")
    options = ("--tls-cert", certificate, "--tls-key", key)
    authority = ("--client-ca", str(certificates / "ca.pem"), "--metrics-address", "127.0.0.1:0")

    class Served(LocalServer):
        command = (*CLI, "serve")  # as an operator starts it

    with Served("--device", "cpu", *options, *authority) as server:
        yield server


def test_each_handshake_that_fails_is_a_line_and_a_count(
    closed: LocalServer, certificates: Path
) -> None:
    good, other = certificates / "ca.pem", certificates / "other-ca.pem"
    assert closed.process.stdout is not None
    url = closed.process.stdout.readline().split()[-1]
    callers: list[tuple[dict[str, Any], str]] = [
        ({}, "the peer does not speak TLS"),
        ({"tls_ca": good}, "the peer sent no certificate"),
        ({"tls_ca": other}, "it may not trust the server's certificate"),
    ]
    for name, reason in (
        ("stranger", "the peer's certificate: unable to get local issuer certificate"),
        ("expired", "the peer's certificate: certificate has expired"),
        ("future", "the peer's certificate: certificate is not yet valid"),
    ):
        certificate, key = pair(certificates, name)
        callers += [({"tls_ca": good, "tls_cert": certificate, "tls_key": key}, reason)]
    for access, _ in callers + callers:
        with (
            Client(closed.address, retry_for=0, **access) as client,
            pytest.raises((Unavailable, Unauthenticated)) as caught,
        ):
            client.get_model()
        if "tls_cert" in access:
            assert "or has refused it as expired, not yet valid or of another" in str(caught.value)
    assert (Scrape(url).value("mnist37_tls_handshakes_failed_total") or 0) >= 2 * len(callers)
    certificate, key = pair(certificates, "good")
    device = health.check(closed.address, tls_ca=good, tls_cert=certificate, tls_key=key)
    assert device == "cpu"
    _, logged = closed.stop()
    lines = [line for line in logged.splitlines() if "a TLS handshake failed" in line]
    assert len(lines) == len(callers), "one of each, and the second ones are only counted"
    for line, (_, reason) in zip(lines, callers, strict=True):
        assert re.search(r"WARNING .* peer=127\.0\.0\.1:\d+ ", line)
        assert reason in line
    assert "handshaker.cc" not in logged


@pytest.mark.parametrize(
    ("name", "warning", "client_text"),
    [
        ("expired", "the certificate has expired", "certificate has expired"),
        ("future", "the certificate is not valid yet", "certificate is not valid yet"),
        ("soon", "the certificate expires within 30 days", None),
        ("good", None, None),
    ],
)
def test_a_certificate_that_expires_is_a_warning_and_a_metric(
    name: str, warning: str | None, client_text: str | None, certificates: Path
) -> None:
    certificate, key = pair(certificates, name)
    options = ("--tls-cert", certificate, "--tls-key", key, "--metrics-address", "127.0.0.1:0")
    with LocalServer("--device", "cpu", *options) as server:
        assert server.process.stdout is not None
        scrape = Scrape(server.process.stdout.readline().split()[-1])
        with Client(server.address, tls_ca=certificates / "ca.pem", retry_for=0) as client:
            if client_text:
                with pytest.raises(Unauthenticated, match=client_text):
                    client.get_model()
            else:
                assert client.get_model().version == 0
    expiry = scrape.value("mnist37_certificate_expiry_timestamp_seconds")
    assert expiry is not None
    days = {"expired": -1, "future": 90, "soon": 29, "good": 365}[name]
    assert (expiry - time.time()) / 86400 == pytest.approx(days, abs=1)
    warnings = re.findall(r"WARNING --tls-cert: (.*?) begins=", server.stop()[1])
    assert warnings == ([warning] if warning else [])


def test_the_health_check_works_by_the_environment_of_the_server(certificates: Path) -> None:
    certificate, key = pair(certificates, "good")
    authority = str(certificates / "ca.pem")
    address = f"0.0.0.0:{free_port()}"
    variables = {
        "MNIST37_ADDRESS": address,
        "MNIST37_STATE": ":memory:",
        "MNIST37_TLS_CERT": certificate,
        "MNIST37_TLS_KEY": key,
        "MNIST37_CLIENT_CA": str(certificates / "other-ca.pem"),
        "MNIST37_TLS_CA": authority,
    }
    variables["MNIST37_CLIENT_CERT"], variables["MNIST37_CLIENT_KEY"] = pair(
        certificates, "stranger"
    )
    with subprocess.Popen(
        SERVE, stdout=subprocess.PIPE, text=True, env=environment(**variables)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on {address}\n"
        for others, status in (({}, 0), ({"MNIST37_CLIENT_CERT": "", "MNIST37_CLIENT_KEY": ""}, 3)):
            finished = subprocess.run(
                [*CLI, "health"],
                env=environment(**{**variables, **others}),
                capture_output=True,
                text=True,
                check=False,
            )
            assert finished.returncode == status, finished.stderr
            assert len((finished.stdout + finished.stderr).splitlines()) == 1
        process.terminate()


# Tokens.

Encode = Callable[[str], bytes]
ENCODINGS: dict[str, Encode] = {
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "lines of Windows": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server that knows the token "mine"."""
    file = tmp_path_factory.mktemp("guarded") / "tokens"
    file.write_text(f"train {hashlib.sha256(b'mine').hexdigest()}")
    with LocalServer("--device", "cpu", "--tokens", str(file)) as server:
        yield server.address


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_files_of_tokens_may_come_from_windows(
    encode: Encode, guarded: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    file = tmp_path / "tokens"
    file.write_bytes(encode(f"\ntrain {digest}  # caf\u00e9\npredict {'0' * 64}\n"))
    assert Tokens(file).role_of("mine") is Role.TRAIN
    file.write_bytes(encode("mine\n"))
    for access, variables in (
        (["--token-file", str(file)], {}),
        ([], {"MNIST37_TOKEN": "mine\r\n"}),
    ):
        finished = subprocess.run(
            [*CLI, "model", "--address", guarded, *access],
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (finished.returncode, finished.stderr) == (0, "")


def test_another_encoding_of_tokens_is_refused_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(f"train {'0' * 64}".encode("utf-16-le"))
    assert "is no UTF-8; is it UTF-16?" in refusal("--tokens", str(file))
    file.write_bytes("caf\u00e9".encode("latin-1"))
    finished = subprocess.run(
        [*CLI, "model", "--token-file", str(file)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "is not UTF-8; save it as UTF-8" in finished.stderr


def test_peers_may_ping_every_ten_seconds_without_a_call() -> None:
    # Three pings too early would end the connection; to see that takes 40 seconds.
    options = dict(rpc_server.options(Config()))
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
