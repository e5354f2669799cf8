"""Tests of a cluster's settings: the commands of its servers, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mnist37_cluster.command import cluster
from mnist37_cluster.settings import ClusterSettings
from mnist37_front.command import front
from mnist37_front.settings import FrontSettings
from mnist37_server.command_line import main as serve
from mnist37_server.config import Config
from mnist37_server.errors import CannotStart
from support.settings import parse

OWNER = "192.0.2.1:50051"
ACCESS: dict[str, Any] = {
    "tls_cert": Path("/pki/server.pem"),
    "tls_key": Path("/pki/server.key"),
    "client_ca": Path("/pki/ca.pem"),
    "tokens": Path("/pki/tokens"),
    "owner_tls_ca": Path("/pki/ca.pem"),
    "owner_tls_cert": Path("/pki/follower.pem"),
    "owner_tls_key": Path("/pki/follower.key"),
    "owner_token_file": Path("/pki/token"),
    "max_age": 10.0,
}
SERVERS_TLS: dict[str, Any] = {"tls_cert": Path("/a"), "tls_key": Path("/b")}


def test_a_follower_gets_the_settings() -> None:
    settings = ClusterSettings(2, tls_server_name="mnist37", **ACCESS)
    words = settings.replica_command("192.0.2.2", OWNER)
    assert words[3] == "mnist37_server"
    config = parse(serve, words[4:])
    assert isinstance(config, Config)
    assert config.address == "192.0.2.2:0"
    following = config.following
    assert following is not None
    assert (following.owner, following.max_age) == (OWNER, 10.0)
    assert following.tls_server_name == "mnist37"
    assert (following.tls_ca, following.token_file) == (ACCESS["owner_tls_ca"], Path("/pki/token"))
    assert (following.tls_cert, following.tls_key) == (
        Path("/pki/follower.pem"),
        Path("/pki/follower.key"),
    )
    for name in ("tls_cert", "tls_key", "client_ca", "tokens"):
        assert getattr(config, name) == ACCESS[name]


def test_a_front_gets_the_settings() -> None:
    settings = ClusterSettings(2, front=True, tls_server_name="mnist37", **ACCESS)
    words = settings.replica_command("192.0.2.2", OWNER)
    assert words[3] == "mnist37_front"
    found = parse(front, words[4:])
    assert isinstance(found, FrontSettings)
    assert (found.owner, found.address, found.http) == (OWNER, "192.0.2.2:0", False)
    for name, value in ACCESS.items():
        assert getattr(found, name) == value
    assert found.owner_tls_server_name == "mnist37"


def test_the_owner_gets_the_settings() -> None:
    settings = ClusterSettings(2, state="/state", device="cpu", insecure=True, log_level="debug")
    words = settings.owner_command(OWNER)
    config = parse(serve, words[4:])
    assert (config.address, config.state, config.device) == (OWNER, Path("/state"), "cpu")
    assert config.insecure
    assert words[-2:] == ["--log-level", "debug"]
    assert config.following is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "--address: other machines can reach 192.0.2.1; add --tls-cert and --tls-key, and"),
        ({"owner": OWNER, "state": "/state"}, "--state: cannot be used with --owner"),
        ({"owner": OWNER, "address": OWNER}, "--address: cannot be used with --owner"),
        ({"owner": "192.0.2.1"}, "--owner: got '192.0.2.1'; must be HOST:PORT"),
        ({"address": "unix:socket"}, "--address: got 'unix:socket'; must be HOST:PORT"),
        ({"insecure": True, "max_age": 0.0}, "--max-age: got 0; must be 1 to"),
        ({**ACCESS, "tls_key": None}, "--tls-cert: needs --tls-key too"),
        ({**ACCESS, "owner_tls_key": None}, "--owner-tls-cert: needs --owner-tls-key too"),
        ({**ACCESS, "owner_token_file": None}, "--owner-token-file: missing; the owner asks for"),
        (
            {**SERVERS_TLS, "client_ca": Path("/c")},
            "--owner-tls-ca: missing; the servers speak TLS",
        ),
        (
            {**SERVERS_TLS, "insecure": True, "owner": OWNER},
            "--owner-tls-ca: missing; the servers speak TLS",
        ),
        (
            {**ACCESS, "owner_tls_cert": None, "owner_tls_key": None},
            "--owner-tls-cert: missing; the servers ask for certificates",
        ),
        (
            {"owner_tls_ca": Path("/a"), "insecure": True},
            "--tls-cert: missing; the followers look for TLS at the owner",
        ),
        ({"tls_server_name": "x"}, "--tls-server-name: needs --owner-tls-ca too"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(CannotStart, match=f"^{re.escape(text)}"):
        check(ClusterSettings(2, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"insecure": True},
        ACCESS,
        {**ACCESS, "front": True},
        {"owner": OWNER, "owner_tls_ca": Path("/a"), "insecure": True},
    ],
)
def test_what_is_accepted(settings: dict[str, Any]) -> None:
    check(ClusterSettings(2, **settings))


def check(settings: ClusterSettings) -> None:
    settings.check("192.0.2.1", str(settings.owner_address("192.0.2.1")))


def test_the_owner_is_on_this_node_by_default() -> None:
    assert str(ClusterSettings(2).owner_address("192.0.2.7")) == "192.0.2.7:50051"
    assert str(ClusterSettings(2, address="[::1]:7").owner_address("x")) == "[::1]:7"


def test_a_command_may_lack_the_word_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def record(context: Any, args: list[str]) -> list[str]:
        del context
        seen.append(args)
        return args

    monkeypatch.setattr(cluster.commands["run"], "parse_args", record)
    for words in (["--replicas", "2"], ["run", "--replicas", "2"]):
        call: Callable[..., Any] = cluster.make_context
        call("cluster", words)
    contexts = [cluster.make_context("cluster", words) for words in (["--ray", "x:1"], ["status"])]
    names = [context._protected_args for context in contexts]
    assert names == [["run"], ["status"]]
