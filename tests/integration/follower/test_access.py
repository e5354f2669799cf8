"""Tests of the way from a follower to its owner: TLS, certificates and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.access import tls
from mnist37_server.config import Following
from mnist37_server.follower.follow_loop import FollowLoop
from mnist37_server.follower.replica import Replica
from mnist37_server.follower.upstream import Upstream
from support import guarding
from support.following import TIMEOUT, Server
from support.scraping import wait_until


@pytest.fixture(scope="module")
def guarded(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return an owner with mutual TLS and tokens."""
    tokens = guarding.tokens_file(tmp_path_factory.mktemp("owner") / "tokens", *guarding.ROLES)
    flags = guarding.guards(pki, tokens)
    with Server("--device", "cpu", "--metrics-address", "127.0.0.1:0", *flags) as server:
        yield server


def following(owner: str, pki: Path, token_file: Path) -> Following:
    return Following(
        owner, pki / "ca.pem", pki / "client.pem", pki / "client.key", token_file, max_age=None
    )


@contextmanager
def followed(settings: Following) -> Iterator[Replica]:
    """Follow an owner in this process, whose log the tests read."""
    replica = Replica()
    credentials = partial(tls.owner_credentials, settings)
    loop = FollowLoop(Upstream(settings.owner, credentials, settings.token_file, "", ""), replica)
    loop.start()
    try:
        yield replica
    finally:
        loop.close()


def test_a_token_of_the_role_follow_and_mutual_tls_suffice(
    guarded: Server, pki: Path, tmp_path: Path
) -> None:
    token = guarding.token_file(tmp_path, "follow")
    settings = following(guarded.address, pki, token)
    flags = guarding.follow_flags(guarded.address, pki, token)
    with Server(*flags, "--advertise", "follower.example:50051") as follower:
        follower.wait_until_serving()
        assert follower.model(tag=None).version == 0
        credentials = tls.owner_credentials(settings)
        assert credentials is not None
        with grpc.secure_channel(guarded.address, credentials) as channel:
            listed = channel.unary_unary(
                "/mnist37.v1.Mnist37Service/ListFollowers",
                pb.ListFollowersRequest.SerializeToString,
                pb.ListFollowersResponse.FromString,
            )(
                pb.ListFollowersRequest(),
                timeout=TIMEOUT,
                metadata=(("authorization", f"Bearer {guarding.secret('follow')}"),),
            )
        assert [known.address for known in listed.followers] == ["follower.example:50051"]


def test_a_token_of_the_role_predict_does_not_suffice_and_a_better_one_is_read_from_the_file(
    guarded: Server, pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = guarding.token_file(tmp_path, "predict")
    with followed(following(guarded.address, pki, file)) as replica:
        assert wait_until(lambda: "the token's role is predict" in caplog.text, TIMEOUT)
        assert replica.position is None
        file.write_text(guarding.secret("follow"))
        assert wait_until(lambda: replica.position is not None, TIMEOUT)
    assert guarding.secret("predict") not in caplog.text


def test_a_follower_verifies_its_followers_by_its_own_tokens(
    owner: Server, pki: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = guarding.tokens_file(tmp_path / "tokens", "predict")
    with Server(*guarding.guards(pki, tokens), "--follow", owner.address) as middle:
        settings = following(middle.address, pki, guarding.token_file(tmp_path, "follow"))
        with followed(settings) as replica:
            assert wait_until(lambda: "UNAUTHENTICATED" in caplog.text, TIMEOUT)
            assert replica.position is None
            guarding.tokens_file(tokens, "predict", "follow")  # which the server reads again
            assert wait_until(lambda: replica.position is not None, TIMEOUT)
            assert replica.route.owner == owner.address


@pytest.mark.parametrize(
    ("authority", "certificate", "text"),
    [
        (None, None, "does it require TLS (--follow-tls-ca)?"),
        ("other-ca", "client", "is --follow-tls-ca the authority that signed it?"),
        ("ca", None, "it requires a certificate (--follow-tls-cert, --follow-tls-key)"),
        ("ca", "stranger", "or has refused it; its log says which"),
    ],
)
def test_the_log_says_which_part_of_tls_is_wrong(
    guarded: Server,
    pki: Path,
    caplog: pytest.LogCaptureFixture,
    authority: str | None,
    certificate: str | None,
    text: str,
) -> None:
    settings = Following(
        guarded.address,
        pki / f"{authority}.pem" if authority else None,
        pki / f"{certificate}.pem" if certificate else None,
        pki / f"{certificate}.key" if certificate else None,
    )
    with followed(settings) as replica:
        assert wait_until(lambda: text in caplog.text, TIMEOUT)
    assert replica.position is None


def test_the_log_says_that_an_owner_speaks_no_tls(
    owner: Server, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with followed(Following(owner.address, pki / "ca.pem")):
        text = "the owner does not speak TLS, which --follow-tls-ca asks for"
        assert wait_until(lambda: text in caplog.text, TIMEOUT)


def test_the_log_says_that_a_certificate_has_another_name(
    pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Its certificate is for "client".
    key, chain = ((pki / f"client.{suffix}").read_bytes() for suffix in ("key", "pem"))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    with followed(Following(f"127.0.0.1:{port}", pki / "ca.pem")):
        text = "the owner's certificate is for another name than the one in --follow"
        assert wait_until(lambda: text in caplog.text, TIMEOUT)
    server.stop(None)


def test_a_certificate_may_have_another_name_than_the_owners_address(pki: Path) -> None:
    shown = ("--tls-cert", str(pki / "client.pem"), "--tls-key", str(pki / "client.key"))
    way = ("--follow-tls-ca", str(pki / "ca.pem"), "--follow-tls-server-name", "client")
    with (
        Server("--device", "cpu", *shown) as owner,
        Server("--follow", owner.address, *way) as follower,
    ):
        follower.wait_until_serving()
        assert follower.model().version == 0


def test_what_fails_on_the_way_to_the_owner_is_no_failed_handshake_of_a_caller(
    guarded: Server, pki: Path, tmp_path: Path
) -> None:
    tokens = guarding.tokens_file(tmp_path / "tokens", "predict")
    flags = guarding.guards(pki, tokens)
    way = ("--follow", guarded.address, "--follow-tls-ca", str(pki / "other-ca.pem"))
    failed = "mnist37_tls_handshakes_failed_total"
    before = guarded.metric(failed) or 0  # the follower's first try may come before it is ready
    with Server(*flags, *way, "--metrics-address", "127.0.0.1:0") as follower:
        assert wait_until(lambda: (guarded.metric(failed) or 0) > before, TIMEOUT)
        assert follower.metric(failed) == 0
        log = follower.stop()[1]
    assert "the owner's certificate is not trusted" in log
    assert "a TLS handshake failed" not in log
