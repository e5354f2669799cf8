"""Tests of access control: servers with TLS, mutual TLS and tokens, and their callers."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mnist37_client import (
    AsyncClient,
    Client,
    Exhausted,
    InvalidInput,
    Mnist37Error,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    validation_images,
)
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server.access import tls
from mnist37_server.access.auth_interceptor import AuthInterceptor
from mnist37_server.access.tokens import Tokens
from mnist37_server.config import Config
from mnist37_server.rpc.server import build

IMAGES = validation_images()[0][:3]
SERVICE = "/mnist37.v1.Mnist37Service/"
METHODS = {
    SERVICE + method.name for method in pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods
}
WRITES = {SERVICE + name for name in ("Step", "Train", "Initialize", "Restore", "Import")}

Code = grpc.StatusCode


def mnist37(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    # The MNIST37_ variables of the shell that runs the tests must not have an effect here.
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MNIST37_")}
    return subprocess.run(
        [sys.executable, "-m", "mnist37_client.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**rest, **variables},
        timeout=30,
        check=False,
    )


class Token:
    """A new token, made by `mnist37 token`."""

    def __init__(self, role: str) -> None:
        made = json.loads(mnist37("token", role, "--name", f"test of {role}", "--json").stdout)
        self.secret: str = made["token"]
        self.line: str = made["line"]


@pytest.fixture(scope="module")
def predict() -> Token:
    return Token("predict")


@pytest.fixture(scope="module")
def train() -> Token:
    return Token("train")


@pytest.fixture(scope="module")
def certificate(pki: Path) -> tuple[str, ...]:
    return ("--tls-cert", str(pki / "server.pem"), "--tls-key", str(pki / "server.key"))


# With metrics, the metrics' interceptor calls the AuthInterceptor.
@pytest.fixture(scope="module", params=["bare", "metrics"])
def guarded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificate: tuple[str, ...],
    predict: Token,
    train: Token,
) -> Iterator[str]:
    """Return the address of a server with TLS and tokens."""
    file = tmp_path_factory.mktemp("guarded") / "tokens"
    file.write_text(f"{predict.line}\n{train.line}\n")
    metrics = ("--metrics-address", "127.0.0.1:0") if request.param == "metrics" else ()
    flags = (*certificate, "--tokens", str(file), *metrics)
    with LocalServer(*flags, "--device", "cpu") as server:
        yield server.address


@pytest.fixture(scope="module")
def mutual(pki: Path, certificate: tuple[str, ...]) -> Iterator[str]:
    """Return the address of a server with mutual TLS."""
    authority = ("--client-ca", str(pki / "ca.pem"))
    with LocalServer(*certificate, *authority, "--device", "cpu") as server:
        yield server.address


def ask(address: str, name: str, *args: object, **access: Any) -> Any:
    """Call a method of Client and return its result, or the first item of an iterator."""
    with Client(address, **access) as client:
        answer = getattr(client, name)(*args)
        return next(iter(answer), None) if isinstance(answer, Iterator) else answer


def ask_async(address: str, name: str, *args: object, **access: Any) -> Any:
    """Call a method of AsyncClient and return its result, or the first item of an iterator."""

    async def call() -> Any:
        async with AsyncClient(address, **access) as client:
            answer = getattr(client, name)(*args)
            return await (anext(answer, None) if hasattr(answer, "__anext__") else answer)

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("ask", [ask, ask_async])
Ask = Callable[..., Any]

READING = [
    ("predict", IMAGES),
    ("predict_stream", [IMAGES]),
    ("get_loss", "valid"),
    ("get_model",),
    ("versions",),
    ("runs",),
]
WRITING = [
    ("step",),
    ("train", 1),
    ("initialize",),
    ("restore", 0),
    ("import_model", [0.0] * 784, 0.0),
]


# Tokens.


@BOTH
def test_a_token_allows_what_its_role_may(
    ask: Ask, guarded: str, pki: Path, predict: Token, train: Token
) -> None:
    for call in READING + WRITING:
        assert ask(guarded, *call, tls_ca=pki / "ca.pem", token=train.secret) is not None, call
    assert ask(guarded, "watch_run", tls_ca=pki / "ca.pem", token=predict.secret).epochs == 1
    for call in READING:
        assert ask(guarded, *call, tls_ca=pki / "ca.pem", token=predict.secret) is not None, call
    before = ask(guarded, "get_model", tls_ca=pki / "ca.pem", token=predict.secret).version
    for call in WRITING:
        with pytest.raises(PermissionDenied, match="is predict; this call needs train") as said:
            ask(guarded, *call, tls_ca=pki / "ca.pem", token=predict.secret)
        assert said.value.reason == "ROLE_INSUFFICIENT"
    assert ask(guarded, "get_model", tls_ca=pki / "ca.pem", token=train.secret).version == before


@BOTH
def test_without_a_known_token_every_call_is_refused(ask: Ask, guarded: str, pki: Path) -> None:
    wrong = "not-a-token-of-this-server"
    for call in READING + WRITING:
        # grpc.aio loses the status of every third stream that is refused while it sends.
        for _ in range(10 if call[0] == "predict_stream" else 1):
            with pytest.raises(Unauthenticated, match="no token; send one"):
                ask(guarded, *call, tls_ca=pki / "ca.pem")
        with pytest.raises(Unauthenticated, match="token is unknown") as said:
            ask(guarded, *call, tls_ca=pki / "ca.pem", token=wrong)
        assert wrong not in str(said.value)


@pytest.fixture(scope="module")
def channel(guarded: str, pki: Path) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials((pki / "ca.pem").read_bytes())
    with grpc.secure_channel(guarded, credentials) as channel:
        yield channel


def status(
    channel: grpc.Channel, method: str, *authorization: str, requests: Iterator[bytes] | None = None
) -> tuple[grpc.StatusCode, str]:
    """Make a call and return its code and details.

    Without `requests` the call has no message; the methods that write refuse such a call.
    """
    metadata = tuple(("authorization", value) for value in authorization)
    begin: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    call = begin(requests or iter(()), timeout=5, metadata=metadata)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return Code.OK, ""


def test_of_two_tokens_the_last_counts(channel: grpc.Channel, train: Token) -> None:
    # The second round runs after the server has cached the known token.
    method, known = "/mnist37.v1.Mnist37Service/Nothing", f"Bearer {train.secret}"
    for _ in range(2):
        assert status(channel, method, known)[0] is Code.UNIMPLEMENTED
        assert status(channel, method, known, "Bearer x")[0] is Code.UNAUTHENTICATED
        assert status(channel, method, "Bearer x", known)[0] is Code.UNIMPLEMENTED


def test_callers_without_a_token_cannot_tell_which_methods_exist(
    channel: grpc.Channel, predict: Token, train: Token
) -> None:
    strange = {SERVICE + "Nothing", "/nothing.Nothing/Nothing", "/inference.GRPCInferenceService/X"}
    assert WRITES < METHODS
    for method in METHODS | strange:
        assert status(channel, method)[0] is Code.UNAUTHENTICATED, method
        assert status(channel, method, "Bearer x")[0] is Code.UNAUTHENTICATED, method
    seen = {status(channel, method, f"Bearer {predict.secret}") for method in WRITES | strange}
    assert {code for code, _ in seen} == {Code.PERMISSION_DENIED}
    assert len(seen) == 1, "the details differ"
    for method in strange:
        assert status(channel, method, f"Bearer {train.secret}")[0] is Code.UNIMPLEMENTED


def test_health_and_reflection_are_open(channel: grpc.Channel) -> None:
    for method in (
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ):
        assert status(channel, method)[0] not in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
    assert status(channel, "/grpc.health.v1.HealthAndMore/Check")[0] is Code.UNAUTHENTICATED


def test_a_token_needs_the_scheme_bearer(channel: grpc.Channel, train: Token) -> None:
    method = SERVICE + "PredictStream"
    assert status(channel, method, f"bearer {train.secret}")[0] is Code.OK
    for wrong in (train.secret, f"Basic {train.secret}", f"Bearer  {train.secret}", "Bearer", ""):
        code, details = status(channel, method, wrong)
        assert code is Code.UNAUTHENTICATED
        assert train.secret not in details


def test_callers_without_a_token_that_never_send_a_message_block_no_thread(
    channel: grpc.Channel, guarded: str, pki: Path, predict: Token
) -> None:
    # 20 such calls are more than there are threads for short calls.
    never: queue.Queue[bytes | None] = queue.Queue()
    for _ in range(20):
        found = status(channel, SERVICE + "Predict", requests=iter(never.get, None))
        assert found[0] is Code.UNAUTHENTICATED
        never.put(None)
    assert ask(guarded, "predict", IMAGES, tls_ca=pki / "ca.pem", token=predict.secret)


def assert_eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail if it does not within 10 seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_file_of_tokens_may_change_and_no_secret_is_told(
    tmp_path: Path, predict: Token, train: Token
) -> None:
    # The server speaks plain text, which is allowed on loopback.
    file = tmp_path / "tokens"
    file.write_text(predict.line)
    server = LocalServer("--tokens", str(file), "--device", "cpu")
    with server, Client(server.address, token=predict.secret) as client:

        def known(token: Token) -> bool:
            try:
                return bool(ask(server.address, "get_model", token=token.secret))
            except Unauthenticated:
                return False

        def may_predict() -> bool:
            try:
                return bool(client.predict(IMAGES))
            except Unauthenticated:
                return False

        assert client.get_model().version == 0
        assert not known(train)
        other = tmp_path / "new"
        other.write_text(f"{predict.line}\n{train.line}\n")
        other.replace(file)
        assert_eventually(lambda: known(train))
        file.write_text(train.secret)  # not a valid line, so the server keeps the old tokens
        time.sleep(1.5)
        assert known(predict)
        assert known(train)
        file.write_text(f"{train.line}\n")
        assert_eventually(lambda: not known(predict))
        assert_eventually(lambda: not may_predict())  # a front reads the file by itself
        assert known(train)
    _, logged = server.stop()
    assert "line 1: must be predict, follow or train and the SHA-256" in logged
    assert "0 for predict, 0 for follow, 1 for train" in logged
    for secret in (predict.secret, train.secret, train.line.split()[1]):
        assert secret not in logged


# TLS.


@BOTH
def test_a_client_certificate_allows_all_calls(ask: Ask, mutual: str, pki: Path) -> None:
    certificate = {"tls_cert": pki / "client.pem", "tls_key": pki / "client.key"}
    for call in READING + WRITING:
        assert ask(mutual, *call, tls_ca=pki / "ca.pem", **certificate) is not None, call
    content = {name: path.read_bytes() for name, path in certificate.items()}
    assert ask(mutual, "get_model", tls_ca=(pki / "ca.pem").read_bytes(), **content)


@BOTH
@pytest.mark.parametrize("stranger", [True, False])
def test_without_a_certificate_of_the_authority_every_call_is_refused(
    ask: Ask, mutual: str, pki: Path, stranger: bool
) -> None:
    access = {"tls_ca": pki / "ca.pem"}
    if stranger:
        access |= {"tls_cert": pki / "stranger.pem", "tls_key": pki / "stranger.key"}
    with pytest.raises(Unavailable, match=r"a certificate of yours \(tls_cert, tls_key\)"):
        ask(mutual, "get_model", **access)


def test_with_both_a_certificate_and_a_token_the_token_decides(
    tmp_path: Path, pki: Path, predict: Token, train: Token
) -> None:
    # The server has an AuthInterceptor and no service: UNIMPLEMENTED means that the call passed.
    (tmp_path / "tokens").write_text(f"{predict.line}\n{train.line}")
    config = Config(
        "127.0.0.1:0",
        tls_cert=pki / "server.pem",
        tls_key=pki / "server.key",
        client_ca=pki / "ca.pem",
        tokens=tmp_path / "tokens",
    )
    assert config.tokens
    interceptor = AuthInterceptor(Tokens(config.tokens))
    server, address = build(config, tls.credentials(config), [interceptor])
    server.start()

    def code_of(method: str, token: Token | None, certificate: str | None = "client") -> Code:
        files: tuple[str, ...] = ("ca.pem",)
        if certificate:
            files += (f"{certificate}.key", f"{certificate}.pem")
        credentials = grpc.ssl_channel_credentials(*((pki / file).read_bytes() for file in files))
        authorization = [f"Bearer {token.secret}"] if token else []
        with grpc.secure_channel(str(address), credentials) as channel:
            return status(channel, SERVICE + method, *authorization)[0]

    assert code_of("Predict", predict) is Code.UNIMPLEMENTED
    assert code_of("Step", predict) is Code.PERMISSION_DENIED
    assert code_of("Step", train) is Code.UNIMPLEMENTED
    assert code_of("Predict", None) is Code.UNAUTHENTICATED
    assert code_of("Predict", train, None) is Code.UNAVAILABLE
    assert code_of("Predict", train, "stranger") is Code.UNAVAILABLE
    server.stop(None).wait()


@BOTH
@pytest.mark.parametrize(
    ("access", "error", "match"),
    [
        ({"tls_ca": "other-ca.pem"}, Unauthenticated, "certificate is not trusted: .*issuer"),
        ({"tls_ca": "public"}, Unauthenticated, "certificate is not trusted: .*issuer"),
        ({"tls_ca": "ca.pem", "tls_server_name": "x.org"}, Unauthenticated, "for another name"),
        ({}, Unavailable, r"does it require TLS \(tls_ca\)"),
        (
            {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "stranger.key"},
            InvalidInput,
            "the key is not the certificate's",
        ),
    ],
)
def test_a_connection_that_fails_says_why_and_soon(
    ask: Ask, guarded: str, pki: Path, access: dict[str, str], error: type[Mnist37Error], match: str
) -> None:
    files = {
        name: value if name == "tls_server_name" or value == "public" else pki / value
        for name, value in access.items()
    }
    began = time.monotonic()
    with pytest.raises(error, match=match):
        ask(guarded, "get_model", **files)
    assert time.monotonic() - began < 5


@BOTH
def test_the_error_says_that_a_server_does_not_speak_tls(ask: Ask, address: str, pki: Path) -> None:
    with pytest.raises(Unauthenticated, match="does not speak TLS"):
        ask(address, "get_model", tls_ca=pki / "ca.pem")


def test_the_certificates_other_name_is_accepted_with_tls_server_name(
    guarded: str, pki: Path, train: Token
) -> None:
    with pytest.raises(NotFound):
        ask(
            guarded,
            "restore",
            10**6,
            tls_ca=pki / "ca.pem",
            tls_server_name="localhost",
            token=train.secret,
        )


# The command line.


def test_the_command_line_takes_access_settings_from_flags_and_the_environment(
    tmp_path: Path, guarded: str, pki: Path, predict: Token, train: Token
) -> None:
    (tmp_path / "token").write_text(f"{train.secret}\n")
    authority = ("--tls-ca", pki / "ca.pem")
    done = mnist37("step", "--address", guarded, *authority, "--token-file", tmp_path / "token")
    assert (done.returncode, done.stderr) == (0, "")
    variables = {
        "MNIST37_ADDRESS": guarded,
        "MNIST37_TLS_CA": str(pki / "ca.pem"),
        "MNIST37_TOKEN": predict.secret,
    }
    assert mnist37("model", **variables).returncode == 0
    assert mnist37("health", **variables).stdout == "serving, the model is on cpu\n"
    for command, status, said in (
        (("step",), 5, "mnist37: the token's role is predict; this call needs train\n"),
        (("step", "--token-file", tmp_path / "token"), 2, "mnist37: --token and --token-file: "),
    ):
        refused = mnist37(*command, **variables)
        assert refused.returncode == status
        assert refused.stderr.startswith(said), refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert predict.secret not in refused.stderr


def test_a_server_without_access_control_that_others_could_reach_does_not_start() -> None:
    with pytest.raises(Unavailable, match="add --tls-cert and --tls-key, and --tokens or"):
        LocalServer("--address", "0.0.0.0:0")


def test_a_token_that_holds_all_streams_keeps_no_other_one_out(
    tmp_path: Path, predict: Token, train: Token
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{predict.line}\n{train.line}\n")
    stop = threading.Event()

    def one_request() -> Iterator[pb.PredictRequest]:
        yield pb.PredictRequest(pixels=IMAGES[0].tobytes())
        stop.wait(20)

    flags = ("--tokens", str(file), "--max-streams", "4", "--device", "cpu")
    with LocalServer(*flags) as server, grpc.insecure_channel(server.address) as channel:
        stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
        bearer = (("authorization", f"Bearer {predict.secret}"),)
        held = []
        for _ in range(4):
            held.append(stub.PredictStream(one_request(), metadata=bearer))
            next(held[-1])  # so the last one is the newest
        with Client(server.address, token=predict.secret) as same, pytest.raises(Exhausted):
            list(same.predict_stream([IMAGES]))
        with Client(server.address, token=train.secret) as client:
            list(client.train(1))
            assert [len(answer.digits) for answer in client.predict_stream([IMAGES])] == [3]
            assert list(client.watch_run(1))
        with pytest.raises(grpc.RpcError) as displaced:
            next(held[-1])
        stop.set()
        assert displaced.value.code() is Code.CANCELLED
        for call in held[:-1]:
            assert next(call, None) is None, "the older ones go on to their end"
