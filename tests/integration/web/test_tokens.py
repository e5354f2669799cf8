"""Tests of who calls: each request goes to the server with its own token, and with no other."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from integration.web.conftest import PREDICT, TRAIN, Guarded
from mnist37_client.local_server import LocalServer
from support.local_web import LocalWeb, Reply, WebCaller

INFER = "/v2/models/mnist37/infer"
REVOKED = "revoked-token-of-a-test"
IMAGE = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784], "data": [9] * 784}
FLOATS = {**IMAGE, "datatype": "FP32", "data": [0.5] * 784}


def infer(
    web: WebCaller, token: str | None, tensor: dict[str, Any] = IMAGE, **options: Any
) -> Reply:
    return web.post(INFER, {"inputs": [tensor]}, token=token, **options)


@pytest.mark.parametrize("tensor", [IMAGE, FLOATS], ids=["UINT8", "FP32"])
@pytest.mark.parametrize("token", [None, "nobody-s"])
def test_a_prediction_without_a_valid_token_is_401(
    guarded: Guarded, token: str | None, tensor: dict[str, Any]
) -> None:
    # The web has a token of role train; nobody else gets it.
    assert infer(guarded.web, PREDICT, tensor).status == 200
    reply = infer(guarded.web, token, tensor)
    assert reply.status == 401
    assert reply.json["reason"] == ("TOKEN_MISSING" if token is None else "TOKEN_INVALID")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert "nobody-s" not in reply.json["error"]


def test_a_stream_of_predictions_without_a_valid_token_is_always_401(guarded: Guarded) -> None:
    # grpc.aio loses the status of some streams that the server refuses while web sends.
    line = {"pixels": base64.b64encode(bytes(784)).decode()}
    for _ in range(60):
        reply = guarded.web.call("PredictStream", line, token="nobody-s")
        assert (reply.status, reply.json["reason"]) == (401, "TOKEN_INVALID")


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/models/mnist37", "/v2/models/mnist37/ready", "/v2/models/stats"]
)
def test_metadata_needs_a_token_too(guarded: Guarded, path: str) -> None:
    assert guarded.web.get(path).status == 401
    assert guarded.web.get(path, token=PREDICT).status == 200


def test_probes_need_none(guarded: Guarded) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert guarded.web.get(path).status == 200


def test_a_role_that_is_too_low_is_403(guarded: Guarded) -> None:
    for token, status in ((None, 401), (PREDICT, 403), (TRAIN, 200)):
        assert guarded.web.call("Initialize", token=token).status == status
        assert guarded.web.call("Train", {"epochs": 1}, token=token).status == status
        assert guarded.web.call("GetLoss", {"split": 1}, token=token).status == (
            401 if token is None else 200
        )
    assert guarded.web.call("Step", token=PREDICT).json["reason"] == "ROLE_INSUFFICIENT"


def test_calls_are_merged_only_among_callers_with_one_token(guarded: Guarded) -> None:
    # In one message, a revoked token would be answered, or a valid one refused.
    guarded.allow(train="train", predict="predict")
    tokens = [PREDICT, REVOKED, None] * 60
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda token: infer(guarded.web, token), tokens))
    expected = {PREDICT: 200, REVOKED: 401, None: 401}
    assert [reply.status for reply in replies] == [expected[token] for token in tokens]


def test_a_token_that_is_revoked_is_refused_soon(guarded: Guarded) -> None:
    guarded.allow(train="train", predict="predict", revoked="predict")
    deadline = time.monotonic() + 10
    while infer(guarded.web, REVOKED).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    guarded.allow(train="train", predict="predict")
    while infer(guarded.web, REVOKED).status != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert infer(guarded.web, PREDICT).status == 200


def test_with_a_password_the_token_is_the_users_name(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a password of a test\n")

    def basic(token: str, password: str) -> dict[str, str]:
        encoded = base64.b64encode(f"{token}:{password}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}

    with LocalWeb(guarded.server.address, "--password-file", str(file)) as web:
        assert web.get("/v2/health/ready").status == 200
        for options in ({}, {"token": PREDICT}, {"headers": basic(PREDICT, "wrong")}):
            reply = web.get("/v2", **options)
            assert (reply.status, reply.json["reason"]) == (401, "PASSWORD_MISSING")
            assert reply.headers["WWW-Authenticate"].startswith("Basic")
        right = "a password of a test"
        assert web.get("/v2", headers=basic(PREDICT, right)).status == 200
        assert web.get("/v2", headers=basic("", right)).json["reason"] == "TOKEN_MISSING"


@pytest.mark.parametrize("token", ["two words", "ü" * 9, "x" * 513])
def test_what_is_no_token_is_refused_here(guarded: Guarded, token: str) -> None:
    header = f"Bearer {token}".encode().decode("latin-1")
    reply = guarded.web.get("/v2", headers={"Authorization": header})
    assert (reply.status, reply.json["reason"]) == (401, "INVALID_AUTHORIZATION")


def test_a_token_does_not_go_to_another_machine_in_plain_text() -> None:
    # 192.0.2.1 is of no machine; the refusal comes before any call.
    with LocalWeb("192.0.2.1:50051") as web:
        for reply in (infer(web, PREDICT), web.call("GetModel", token=PREDICT)):
            assert (reply.status, reply.json["code"]) == (400, "INVALID_ARGUMENT")
            assert "in plain text" in reply.json["error"]
            assert PREDICT not in reply.json["error"]


def test_many_tokens_do_not_fill_the_memory(guarded: Guarded) -> None:
    for number in range(300):  # web knows 256 at a time
        assert infer(guarded.web, f"nobody-{number}").status == 401
    assert infer(guarded.web, PREDICT).status == 200


def test_an_open_server_ignores_tokens(server: LocalServer) -> None:
    with LocalWeb(server.address) as web:
        assert infer(web, "any").status == 200
