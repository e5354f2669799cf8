"""Tests of the settings and files of access control: TLS, tokens and roles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from mnist37_server.access import tls
from mnist37_server.access.roles import READS, Role
from mnist37_server.access.tokens import Tokens
from mnist37_server.config import Config
from mnist37_server.errors import CannotStart

HASHES = [hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")]


# The settings.


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", "[0:0:0:0:0:0:0:1]"]
)
def test_loopback_needs_nothing(host: str) -> None:
    assert Config(f"{host}:0").parsed_address.is_loopback


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "[::]",
        "10.1.2.3",
        "128.0.0.1",
        "127.1",  # the resolver decides which address this is
        "localhost.example.org",
        "127.0.0.1,0.0.0.0",
        "[::ffff:10.0.0.1]",
    ],
)
def test_beyond_loopback_a_server_needs_tls_and_a_way_to_know_its_callers(
    host: str, pki: Path
) -> None:
    address = f"{host}:0"
    pair: dict[str, Any] = {"tls_cert": pki / "server.pem", "tls_key": pki / "server.key"}
    with pytest.raises(CannotStart, match="--tls-cert and --tls-key, and --tokens or --client-ca,"):
        Config(address)
    with pytest.raises(CannotStart, match="add --tokens or --client-ca, or --insecure"):
        Config(address, **pair)
    with pytest.raises(CannotStart, match="add --tls-cert and --tls-key, or --insecure"):
        Config(address, tokens=pki / "tokens")
    Config(address, **pair, tokens=pki / "tokens")
    Config(address, **pair, client_ca=pki / "ca.pem")
    Config(address, insecure=True)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tls_cert": Path("c")}, "--tls-cert: needs --tls-key"),
        ({"tls_key": Path("k")}, "--tls-key: needs --tls-cert"),
        ({"client_ca": Path("a")}, "--client-ca: needs --tls-cert and --tls-key"),
    ],
)
def test_settings_that_lack_another_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(CannotStart, match=match):
        Config(insecure=True, **given)


@pytest.mark.parametrize(
    ("certificate", "key", "authority", "match"),
    [
        ("missing", "server.key", None, "--tls-cert: cannot read .*missing: No such file"),
        ("server.pem", "missing", None, "--tls-key: cannot read .*missing: No such file"),
        ("server.pem", "server.key", "missing", "--client-ca: cannot read .*missing: No such file"),
        ("garbage", "server.key", None, "--tls-cert: .*garbage holds no certificate in PEM"),
        ("server.key", "server.key", None, "--tls-cert: .*server.key holds no certificate"),
        ("server.pem", "garbage", None, "--tls-key: .*garbage holds no private key in PEM"),
        ("server.pem", "client.key", None, "--tls-key: .*client.key is not the key of .*server"),
        ("server.pem", "server.key", "garbage", "--client-ca: .*garbage holds no certificate"),
    ],
)
def test_a_file_that_tls_cannot_use_is_named(
    pki: Path, certificate: str, key: str, authority: str | None, match: str
) -> None:
    client_ca = None if authority is None else pki / authority
    config = Config(tls_cert=pki / certificate, tls_key=pki / key, client_ca=client_ca)
    with pytest.raises(CannotStart, match=match):
        tls.credentials(config)


# The file of tokens.


def tokens(folder: Path, content: str | bytes) -> Tokens:
    path = folder / "tokens"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Tokens(path)


def test_a_line_is_a_role_and_a_hash(tmp_path: Path) -> None:
    lines = f" predict {HASHES[0]}\ntrain\t{HASHES[1].upper()}  # nächtlich #2 {'x' * 99}"
    found = tokens(tmp_path, f"# who may\r\n\n{lines}")
    assert found.role_of("one") is Role.PREDICT
    assert found.role_of("two") is Role.TRAIN
    for stranger in ("", "three", HASHES[0], "one ", "öne"):
        assert found.role_of(stranger) is None
    assert (found.role_of("one"), found.role_of("two")) == (Role.PREDICT, Role.TRAIN), "once more"
    assert str(found) == "1 for predict, 0 for follow, 1 for train"


@pytest.mark.parametrize("content", ["", "\n", f"# train {HASHES[0]}\n"])
def test_a_file_without_tokens_allows_no_caller(tmp_path: Path, content: str) -> None:
    assert str(tokens(tmp_path, content)) == "0 for predict, 0 for follow, 0 for train"


@pytest.mark.parametrize(
    "wrong",
    [
        "secret",
        "train secret",
        "train",
        f"admin {HASHES[1]}",
        f"TRAIN {HASHES[1]}",
        f"{HASHES[1]} train",
        f"train {HASHES[1]} secret",
        f"train {HASHES[1][:-1]}",
        f"train {HASHES[1]}0",
        f"train {HASHES[1][:-1]}x",
        f"train{HASHES[1]}",
        f"train {HASHES[0]}",
        b"\xff\xfe\x00",
    ],
)
def test_a_line_that_is_not_right_is_named_and_not_repeated(
    tmp_path: Path, wrong: str | bytes
) -> None:
    text = wrong.encode() if isinstance(wrong, str) else wrong
    with pytest.raises(CannotStart, match=r"--tokens: .*tokens, line 3: ") as said:
        tokens(tmp_path, f"predict {HASHES[0]}\n\n".encode() + text + b"\n")
    for secret in ("secret", "admin", HASHES[0][:60], HASHES[1][:60]):
        assert secret not in str(said.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"--tokens: cannot read .*none: No such file"):
        Tokens(tmp_path / "none")


@pytest.mark.parametrize("secret", ["f" * 64, "a-token-of-16-ch", "x" * 300])
def test_a_token_in_place_of_the_file_is_not_printed(secret: str) -> None:
    with pytest.raises(CannotStart, match=r"^--tokens: there is no such file; ") as refused:
        Tokens(Path(secret))
    assert secret[:8] not in str(refused.value)


def test_a_changed_file_counts_only_if_it_is_valid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    found = tokens(tmp_path, f"predict {HASHES[0]}\n")
    assert found.role_of("one") is Role.PREDICT
    path.write_text(f"predict {HASHES[1]}\n")  # same length, and within the same tick of the clock
    found.refresh()
    assert found.role_of("one") is None
    assert found.role_of("two") is Role.PREDICT
    for wrong in (b"train\n", b"\npredict " + HASHES[0][:-1].encode(), None):
        if wrong is None:
            path.unlink()
        else:
            path.write_bytes(wrong)
        caplog.clear()
        for _ in range(3):
            found.refresh()
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert "the tokens from before still hold" in record.getMessage()
        assert found.role_of("two") is Role.PREDICT
    path.write_text("")
    found.refresh()
    assert found.role_of("two") is None


def test_the_role_predict_may_call_only_the_listed_methods() -> None:
    # Every other method, including new ones, needs train.
    mnist37 = {method.split("/")[2] for method in READS if "/mnist37.v1.Mnist37Service/" in method}
    assert mnist37 == {
        "Predict",
        "PredictStream",
        "GetLoss",
        "GetModel",
        "ListVersions",
        "ListTags",
        "ListRuns",
        "WatchRun",
    }
