"""Tests of a follower's settings, and of the greatest age of a connection to its owner."""

from __future__ import annotations

import re
import time
from pathlib import Path
from subprocess import CalledProcessError

import grpc
import pytest
from mnist37_client import Unavailable
from mnist37_server.access import tls
from mnist37_server.command_line import main
from mnist37_server.config import Config, Following
from mnist37_server.errors import CannotStart
from support.following import Server
from support.scraping import wait_until
from support.settings import parse

# Nobody listens there: a follower that starts would wait.
FOLLOW = ("--follow", "127.0.0.1:1")


def test_a_connection_ends_at_its_greatest_age() -> None:
    with Server("--device", "cpu", "--max-connection-age", "1") as server:
        states: list[grpc.ChannelConnectivity] = []
        server.channel.subscribe(states.append, try_to_connect=True)
        started = time.monotonic()
        assert wait_until(lambda: grpc.ChannelConnectivity.IDLE in states[2:], 5)
        assert time.monotonic() - started > 0.8
        assert server.model().version == 0  # on another connection


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((*FOLLOW, "--state", ":memory:"), "--state cannot be used with --follow"),
        ((*FOLLOW, "--data-root", "."), "--data-root cannot be used with --follow"),
        ((*FOLLOW, "--download"), "--download cannot be used with --follow"),
        ((*FOLLOW, "--max-pending-writes", "7"), "--max-pending-writes cannot be used with"),
        (("--advertise", "a:1"), "--advertise needs --follow"),
        (("--max-age", "3"), "--max-age needs --follow"),
        (("--follow-token-file", "any"), "--follow-token-file needs --follow"),
    ],
)
def test_flags_of_the_other_role_are_refused(options: tuple[str, ...], text: str) -> None:
    with pytest.raises(Unavailable, match=re.escape(text)):
        Server(*options)


def test_a_flag_that_its_variable_turns_off_is_not_given() -> None:
    found = parse(main, FOLLOW, {"MNIST37_DOWNLOAD": "false"})
    assert found.following == Following(FOLLOW[1])
    with pytest.raises(CalledProcessError):
        parse(main, FOLLOW, {"MNIST37_DOWNLOAD": "true"})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"owner": "elsewhere"}, "--follow: got 'elsewhere'; must be HOST:PORT"),
        ({"owner": "elsewhere:0"}, "must have the owner's port"),
        ({"advertise": "nowhere"}, "--advertise: got 'nowhere'"),
        ({"max_age": 0.5}, "--max-age: got 0.5; must be 1 to 86,400 seconds"),
        ({"tls_cert": Path("any")}, "--follow-tls-cert: needs --follow-tls-key too"),
        ({"tls_key": Path("any")}, "--follow-tls-key: needs --follow-tls-cert too"),
        (
            {"tls_cert": Path("any"), "tls_key": Path("any")},
            "--follow-tls-cert: needs --follow-tls-ca too",
        ),
        ({"tls_server_name": "any"}, "--follow-tls-server-name: needs --follow-tls-ca too"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], text: str) -> None:
    for flag in ("--follow", "--owner"):  # as a front names it
        with pytest.raises(CannotStart, match=re.escape(text.replace("--follow", flag))):
            Following(**{"owner": "127.0.0.1:50051", "flag": flag, **values})  # type: ignore[arg-type]


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(CannotStart, match="--device: got 'cuda'; a follower computes on the CPU"):
        Config(device="cuda", following=Following("a:1"))
    with pytest.raises(CannotStart, match="--max-connection-age: got 0; must be 1 to"):
        Config(max_connection_age=0)
    with pytest.raises(CannotStart, match=r"--follow: got 127\.0\.0\.1:7, which is --address"):
        Config(address="127.0.0.1:7", following=Following("127.0.0.1:7"))
    elsewhere = Following("elsewhere:1", token_file=Path("any"))
    with pytest.raises(CannotStart, match="would go to another machine in plain text"):
        Config(following=elsewhere)
    assert Config(following=elsewhere, insecure=True).following == elsewhere


def test_files_that_cannot_be_used_are_refused(pki: Path, tmp_path: Path) -> None:
    garbage = pki / "garbage"
    with pytest.raises(CannotStart, match=r"--follow-tls-ca: .* holds no certificate in PEM"):
        tls.owner_credentials(Following("a:1", tls_ca=garbage))
    wrong_pair = Following("a:1", pki / "ca.pem", pki / "client.pem", pki / "server.key")
    with pytest.raises(CannotStart, match=r"--follow-tls-key: .* is not the key of"):
        tls.owner_credentials(wrong_pair)
    with pytest.raises(CannotStart, match="--follow-token-file: cannot read"):
        tls.check_token_file(Following("a:1", token_file=tmp_path / "missing"))
    with pytest.raises(CannotStart, match="and not the secret itself") as refused:
        tls.check_token_file(Following("a:1", token_file=Path("f" * 64)))
    assert "ffff" not in str(refused.value)
    with pytest.raises(CannotStart, match=r"--follow-token-file: .* must hold one token"):
        tls.check_token_file(Following("a:1", token_file=garbage))
