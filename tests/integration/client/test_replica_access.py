"""Tests of clients of real followers behind TLS and tokens, and of followers under a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mnist37_client import Client, Mnist37Error, NotOwner, Unauthenticated, Unavailable
from support import guarding
from support.both_clients import IMAGES, AnyClient, MakeClient
from support.following import Server
from support.scraping import wait_until

METRICS = ("--metrics-address", "127.0.0.1:0")
READS = 20


class GuardedStack:
    """An owner and three followers, all of which want certificates and tokens.

    The last follower knows no token of the role *train*.
    """

    def __init__(self, pki: Path, folder: Path, leave: ExitStack) -> None:
        self.access: dict[str, Any] = {
            "tls_ca": pki / "ca.pem",
            "tls_cert": pki / "client.pem",
            "tls_key": pki / "client.key",
            "token": guarding.secret("train"),
        }
        everybody = guarding.tokens_file(folder / "everybody", *guarding.ROLES)
        readers = guarding.tokens_file(folder / "readers", "predict")
        token = guarding.token_file(folder, "follow")

        def serve(tokens: Path, *options: str) -> Server:
            flags = (*guarding.guards(pki, tokens), *METRICS)
            return leave.enter_context(Server(*flags, *options))

        self.owner = serve(everybody, "--device", "cpu")
        with Client(self.owner.address, **self.access) as client:
            client.step()
        follow = guarding.follow_flags(self.owner.address, pki, token)
        self.followers = [
            serve(everybody, *follow),
            serve(everybody, *follow, "--address", "127.0.0.2:0"),
            serve(readers, *follow),
        ]

    def step(self) -> int:
        """Do a step; return the version, which all followers have now."""
        with Client(self.owner.address, **self.access) as client:
            version = client.step().version
            assert wait_until(
                lambda: [each.version for each in client.followers()] == [version] * 3, 10
            )
        return version


@pytest.fixture(scope="module")
def stack(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStack]:
    with ExitStack() as leave:
        yield GuardedStack(pki, tmp_path_factory.mktemp("stack"), leave)


def answered(server: Server) -> float:
    """Return how many images a server has answered for."""
    return server.metric("mnist37_images_predicted_total") or 0.0


def read(client: AnyClient, version: int) -> None:
    """Read often, and assert that each answer is of a version."""
    assert {client.predict(IMAGES[0]).version for _ in range(READS)} == {version}


def test_reads_go_to_followers_behind_tls_and_writes_to_the_owner(
    make: MakeClient, stack: GuardedStack
) -> None:
    version = stack.step()
    replicas = [stack.followers[1].address, stack.followers[0].address]
    access = {**stack.access, "tls_server_name": "localhost"}  # 127.0.0.2 is in no certificate
    before = [answered(server) for server in (stack.owner, *stack.followers)]
    client = make(stack.owner.address, replicas=replicas, **access)
    read(client, version)
    others = make(None, replicas=replicas, **access)  # without the owner to fall back on
    read(others, version)
    counts = [answered(server) for server in (stack.owner, *stack.followers)]
    owner, first, second, third = (now - then for now, then in zip(counts, before, strict=True))
    assert first + second + owner >= 2 * READS
    assert min(first, second) >= READS / 2
    assert third == 0
    assert client.step().version == version + 1
    assert client.predict(IMAGES[0]).version == version + 1
    # No follower holds it: one asks the owner.
    old = others.get_model(version=0)
    assert old.digest == client.get_model(version=0, fresh=True).digest
    with pytest.raises(NotOwner):
        others.step()


def test_the_owner_answers_where_a_follower_does_not_know_the_token(
    make: MakeClient, stack: GuardedStack
) -> None:
    version = stack.step()
    replicas = [stack.followers[2].address]
    reader = {**stack.access, "token": guarding.secret("predict")}
    read(make(None, replicas=replicas, **reader), version)
    before = answered(stack.owner)
    read(make(stack.owner.address, replicas=replicas, **stack.access), version)
    assert answered(stack.owner) == before + READS
    with pytest.raises(Unauthenticated, match="the token is unknown") as refused:
        make(None, replicas=replicas, **stack.access).predict(IMAGES[0])
    assert guarding.secret("train") not in str(refused.value)


def test_the_name_of_a_name_service_is_that_of_the_certificate(
    make: MakeClient, stack: GuardedStack
) -> None:
    version = stack.step()
    _, _, port = stack.followers[0].address.rpartition(":")
    read(make(None, replicas=f"dns:///localhost:{port}", **stack.access), version)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"tls_ca": "other-ca.pem"}, Unauthenticated, "certificate is not trusted"),
        ({"tls_server_name": "elsewhere"}, Unauthenticated, "certificate is for another name"),
        (
            {"tls_cert": "stranger.pem", "tls_key": "stranger.key"},
            Unavailable,
            r"certificate of yours \(tls_cert, tls_key\)",
        ),
    ],
)
def test_an_error_says_which_part_of_tls_is_wrong(
    make: MakeClient,
    stack: GuardedStack,
    pki: Path,
    change: dict[str, str],
    kind: type[Mnist37Error],
    text: str,
) -> None:
    files = {name: pki / value for name, value in change.items() if name != "tls_server_name"}
    access: dict[str, Any] = {**stack.access, **change, **files}
    replicas = [stack.followers[0].address]
    with pytest.raises(kind, match=text):
        make(None, replicas=replicas, retry_for=0, **access).predict(IMAGES[0])


@pytest.mark.parametrize("replicas", ["127.0.0.1:1", "127.0.0.1:1, 127.0.0.1:2"])
def test_an_error_says_where_no_follower_listens(make: MakeClient, replicas: str) -> None:
    with pytest.raises(Unavailable, match=f"no server listens at {replicas}; is the server run"):
        make(None, replicas=replicas, retry_for=0).predict(IMAGES[0])


def test_an_error_says_that_no_follower_is_ready(make: MakeClient) -> None:
    with (
        Server("--follow", "127.0.0.1:1") as follower,
        pytest.raises(Unavailable, match=f"^{follower.address}: no follower is ready; they have"),
    ):
        make(None, replicas=[follower.address], retry_for=0).predict(IMAGES[0])


@pytest.fixture(scope="module")
def plain_owner() -> Iterator[Server]:
    with Server("--device", "cpu", *METRICS) as server:
        yield server


def test_a_follower_under_a_name_may_be_replaced(make: MakeClient, plain_owner: Server) -> None:
    options = ("--follow", plain_owner.address, *METRICS)
    first = Server(*options).wait_until_serving()
    name = f"dns:///localhost:{first.address.rpartition(':')[2]}"
    client, reader = make(plain_owner.address, replicas=name), make(None, replicas=name)
    version = client.step().version
    first.wait_for(version)
    before = answered(plain_owner)
    for each in (client, reader):
        read(each, version)
    assert answered(first) >= 2 * READS - (answered(plain_owner) - before)
    assert answered(first) > READS
    first.kill()
    read(client, version)
    with Server(*options, "--address", first.address) as second:
        second.wait_until_serving()
        second.wait_for(version)
        for each in (client, reader):
            assert wait_until(lambda: predicted_by(second, each), 10)  # noqa: B023
            read(each, version)


def predicted_by(server: Server, client: AnyClient) -> bool:
    """Return whether a server answers a prediction of a client."""
    before = answered(server)
    client.predict(IMAGES[0])
    return answered(server) > before
