"""Tests of a follower's settings: TLS and tokens on the way to the owner, and refused flags."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from mnist37_client import Unavailable
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.access import tls
from mnist37_server.config import Config, Following
from mnist37_server.errors import CannotStart
from mnist37_server.follower.follow_loop import FollowLoop
from mnist37_server.follower.replica import Replica
from mnist37_server.follower.upstream import Upstream
from support.following import TIMEOUT, Server
from support.scraping import wait_until

ROLES = ("predict", "follow", "train")
# Nobody listens there: a follower that starts would wait.
FOLLOW = ("--follow", "127.0.0.1:1")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a token for each role, and the file for a server, `tokens`."""
    folder = tmp_path_factory.mktemp("tokens")
    lines = []
    for role in ROLES:
        secret = f"secret-of-{role}"
        (folder / role).write_text(f"{secret}\n")
        lines.append(f"{role} {hashlib.sha256(secret.encode()).hexdigest()}\n")
    (folder / "tokens").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def guarded(pki: Path, tokens: Path) -> Iterator[str]:
    """Return the address of an owner with mutual TLS and tokens."""
    flags = {
        "--tls-cert": pki / "server.pem",
        "--tls-key": pki / "server.key",
        "--client-ca": pki / "ca.pem",
        "--tokens": tokens / "tokens",
    }
    arguments = [str(part) for flag in flags.items() for part in flag]
    with Server("--device", "cpu", *arguments) as server:
        yield server.address


def following(owner: str, pki: Path, token_file: Path) -> Following:
    return Following(
        owner, pki / "ca.pem", pki / "client.pem", pki / "client.key", token_file, max_age=None
    )


def test_a_token_of_the_role_follow_and_mutual_tls_suffice(
    guarded: str, pki: Path, tokens: Path
) -> None:
    settings = following(guarded, pki, tokens / "follow")
    arguments = {
        "--follow": settings.owner,
        "--follow-tls-ca": settings.tls_ca,
        "--follow-tls-cert": settings.tls_cert,
        "--follow-tls-key": settings.tls_key,
        "--follow-token-file": settings.token_file,
        "--advertise": "follower.example:50051",
    }
    flags = [str(part) for flag in arguments.items() for part in flag]
    with Server(*flags) as follower:
        follower.wait_until_serving()
        assert follower.model(tag=None).version == 0
        credentials = tls.owner_credentials(settings)
        assert credentials is not None
        with grpc.secure_channel(guarded, credentials) as channel:
            listed = channel.unary_unary(
                "/mnist37.v1.Mnist37Service/ListFollowers",
                pb.ListFollowersRequest.SerializeToString,
                pb.ListFollowersResponse.FromString,
            )(
                pb.ListFollowersRequest(),
                timeout=TIMEOUT,
                metadata=(("authorization", "Bearer secret-of-follow"),),
            )
        assert [known.address for known in listed.followers] == ["follower.example:50051"]


def test_a_token_of_the_role_predict_does_not_suffice_and_a_better_one_is_read_from_the_file(
    guarded: str, pki: Path, tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text((tokens / "predict").read_text())
    settings = following(guarded, pki, file)
    replica = Replica()
    upstream = Upstream(guarded, tls.owner_credentials(settings), file, "any", "")
    loop = FollowLoop(upstream, replica)
    loop.start()
    assert wait_until(lambda: "the token's role is predict" in caplog.text, TIMEOUT)
    assert replica.position is None
    file.write_text((tokens / "follow").read_text())
    assert wait_until(lambda: replica.position is not None, TIMEOUT)
    loop.close()


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
        ((*FOLLOW, "--max-followers", "7"), "--max-followers cannot be used with --follow"),
        (("--advertise", "a:1"), "--advertise needs --follow"),
        (("--max-age", "3"), "--max-age needs --follow"),
        (("--follow-token-file", "any"), "--follow-token-file needs --follow"),
    ],
)
def test_flags_of_the_other_role_are_refused(options: tuple[str, ...], text: str) -> None:
    with pytest.raises(Unavailable, match=re.escape(text)):
        Server(*options)


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
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(CannotStart, match=re.escape(text)):
        Following(**{"owner": "127.0.0.1:50051", **values})  # type: ignore[arg-type]


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(CannotStart, match="--device: got 'cuda'; a follower computes on the CPU"):
        Config(device="cuda", following=Following("a:1"))
    with pytest.raises(CannotStart, match="--max-connection-age: got 0; must be 1 to"):
        Config(max_connection_age=0)
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
    with pytest.raises(CannotStart, match=r"--follow-token-file: .* must hold one token"):
        tls.check_token_file(Following("a:1", token_file=garbage))
