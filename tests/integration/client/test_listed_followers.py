"""Tests of clients that ask the owner for its followers, and find those that have moved."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from mnist37_client import (
    FailedPrecondition,
    InvalidInput,
    Mnist37Error,
    PermissionDenied,
    ServerError,
)
from mnist37_protos.v1 import mnist37_pb2 as pb
from support import guarding
from support.both_clients import IMAGES, MakeClient
from support.following import Server
from support.liar import Liar
from support.reading import reading
from support.scraping import wait_until

METRICS = ("--metrics-address", "127.0.0.1:0")
FOUND_SECONDS = 30  # far more than the client needs to ask again


class Count(Counter[str]):
    """A server that tells lies, and counts the calls that it gets."""

    def __init__(self, start: int, version: int) -> None:
        super().__init__()
        self.liar = Liar()
        self.address = self.liar.address
        self.position = {"start": start, "version": version}
        self.listed: list[str] = []
        for rpc in ("Predict", "PredictStream"):
            self.liar.answers[rpc] = self._counted(rpc, self._predict)
        self.liar.answers["ListFollowers"] = self._counted("ListFollowers", self._list)

    def _counted(self, rpc: str, answer: Any) -> Any:
        def count(content: Any, _context: grpc.ServicerContext) -> Iterator[bytes]:
            self[rpc] += 1
            return iter(answer(content))

        return count

    def _predict(self, content: bytes | list[bytes]) -> Iterator[bytes]:
        for each in content if isinstance(content, list) else [content]:
            images = len(pb.PredictRequest.FromString(each).pixels) // 784
            answer = pb.PredictResponse(probabilities=[0.5] * images, **self.position)
            yield answer.SerializeToString()

    def _list(self, _content: bytes) -> Iterator[bytes]:
        followers = [
            pb.Follower(id=address, address=address, position=pb.Position(**self.position))
            for address in self.listed
        ]
        for follower in followers:
            follower.connected_at.GetCurrentTime()
        yield pb.ListFollowersResponse(followers=followers).SerializeToString()

    def fail(self, code: grpc.StatusCode, text: str) -> None:
        """Refuse to list the followers."""
        self.liar.answers["ListFollowers"] = lambda _content, context: context.abort(code, text)


@pytest.fixture
def owner() -> Iterator[Count]:
    found = Count(11, 7)
    with found.liar:
        yield found


@pytest.fixture
def follower() -> Iterator[Count]:
    found = Count(11, 7)
    with found.liar:
        yield found


def answered(server: Server) -> float:
    """Return how many images a server has answered for."""
    return server.metric("mnist37_images_predicted_total") or 0.0


def test_followers_that_move_are_found(make: MakeClient) -> None:
    with Server("--device", "cpu", *METRICS) as owner:
        follow = ("--follow", owner.address, *METRICS)
        first = Server(*follow).wait_until_serving()
        client = make(owner.address, replicas="owner")
        # No read goes to the owner, not even the first one.
        assert client.predict(IMAGES[:5]).version == 0
        assert (answered(first), answered(owner)) == (5, 0)
        with ExitStack() as stack, reading(client):
            first.kill()
            second = stack.enter_context(Server(*follow))
            assert second.address != first.address
            assert wait_until(lambda: answered(second) > 100, FOUND_SECONDS)
            # Without the owner the client goes on where it was.
            owner.kill()
            before = answered(second)
            assert wait_until(lambda: answered(second) > before + 100, FOUND_SECONDS)


def test_a_client_without_followers_gets_those_that_come(make: MakeClient) -> None:
    with Server("--device", "cpu", *METRICS) as owner:
        client = make(owner.address, replicas="owner")
        client.predict(IMAGES[0])
        assert answered(owner) == 1
        with Server("--follow", owner.address, *METRICS) as follower, reading(client):
            assert wait_until(lambda: answered(follower) > 100, FOUND_SECONDS)


def test_the_owner_is_asked_now_and_then(make: MakeClient, owner: Count, follower: Count) -> None:
    owner.listed = [follower.address]
    client = make(owner.address, replicas="owner")
    for _ in range(50):
        client.predict(IMAGES[0])
    assert owner["Predict"] == 0
    assert owner["ListFollowers"] < 10
    asked = owner["ListFollowers"]

    def is_asked() -> bool:
        client.predict(IMAGES[0])
        return owner["ListFollowers"] > asked

    assert wait_until(is_asked, FOUND_SECONDS)
    assert follower["Predict"] > 50


def test_a_stream_stays_open_while_the_followers_change(
    make: MakeClient, owner: Count, follower: Count
) -> None:
    owner.listed = [follower.address]
    client = make(owner.address, replicas="owner")
    client.predict(IMAGES[0])
    began, changed = threading.Event(), threading.Event()
    answer = follower.liar.answers["PredictStream"]

    def answer_later(content: Any, context: grpc.ServicerContext) -> Iterable[bytes]:
        began.set()
        assert changed.wait(FOUND_SECONDS)
        return answer(content, context)

    follower.liar.answers["PredictStream"] = answer_later
    other = Count(11, 7)
    with other.liar, ThreadPoolExecutor() as threads:
        predictions = threads.submit(lambda: list(client.predict_stream([IMAGES[0]])))
        assert began.wait(FOUND_SECONDS)
        owner.listed = [other.address]

        def is_found() -> bool:
            client.predict(IMAGES[0])
            return other["Predict"] > 1

        assert wait_until(is_found, FOUND_SECONDS)
        changed.set()
        assert [each.version for each in predictions.result()] == [7]
    assert (follower["PredictStream"], other["PredictStream"], owner["PredictStream"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        (["{}"], True),
        (["follower-1:50051", "{}"], True),
        (["[::1]:1", "{}"], False),  # of two kinds the first is taken
        (["unix:/nonexistent", "{}"], True),
        ([""], False),
        ([], False),
    ],
)
def test_followers_with_an_ip_address_are_asked(
    make: MakeClient, owner: Count, follower: Count, listed: list[str], asked: bool
) -> None:
    owner.listed = [address.format(follower.address) for address in listed]
    client = make(owner.address, replicas="owner")
    assert client.predict(IMAGES[0]).version == 7
    assert [each.version for each in client.predict_stream([IMAGES[0]])] == [7]
    assert (follower["Predict"], follower["PredictStream"]) == ((1, 1) if asked else (0, 0))


def test_a_list_of_names_alone_is_an_error(make: MakeClient, owner: Count) -> None:
    owner.listed = ["follower-1:50051"]
    client = make(owner.address, replicas="owner")
    text = "no follower with an IP address, but 'follower-1:50051'; start the followers with"
    with pytest.raises(InvalidInput, match=text):
        client.predict(IMAGES[0])
    with pytest.raises(InvalidInput, match=text):
        list(client.predict_stream([IMAGES[0]]))
    assert client.predict(IMAGES[0], fresh=True).version == 7


def test_no_follower_gets_the_token_in_plain_text(
    make: MakeClient, owner: Count, follower: Count
) -> None:
    owner.listed = ["192.0.2.1:50051", follower.address]
    client = make(owner.address, replicas="owner", token="secret")
    with pytest.raises(InvalidInput, match=r"^token: would go to 192\.0\.2\.1:50051 in plain"):
        client.predict(IMAGES[0])
    trusting = make(owner.address, replicas="owner", token="secret", insecure=True, timeout=20)
    assert trusting.predict(IMAGES[0]).version == 7


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPrecondition),  # a follower
        (grpc.StatusCode.UNIMPLEMENTED, ServerError),  # an older server
    ],
)
def test_a_server_without_a_list(
    make: MakeClient, owner: Count, code: grpc.StatusCode, kind: type[Mnist37Error]
) -> None:
    owner.fail(code, "this is no owner")
    client = make(owner.address, replicas="owner")
    with pytest.raises(kind, match="this is no owner; replicas='owner' asks the owner for"):
        client.predict(IMAGES[0])


def test_the_owner_answers_if_it_has_no_list_now(make: MakeClient, owner: Count) -> None:
    owner.fail(grpc.StatusCode.UNAVAILABLE, "not now")
    client = make(owner.address, replicas="owner", retry_for=0)
    assert client.predict(IMAGES[0]).version == 7
    assert [each.version for each in client.predict_stream([IMAGES[0]])] == [7]


def test_the_list_needs_the_role_follow(make: MakeClient, pki: Path, tmp_path: Path) -> None:
    tokens = guarding.tokens_file(tmp_path / "tokens", *guarding.ROLES)
    access: dict[str, Any] = {
        "tls_ca": pki / "ca.pem",
        "tls_cert": pki / "client.pem",
        "tls_key": pki / "client.key",
        "tls_server_name": "localhost",
    }
    guards = guarding.guards(pki, tokens)
    with Server(*guards, "--device", "cpu", *METRICS) as owner:
        token = guarding.token_file(tmp_path, "follow")
        follow = guarding.follow_flags(owner.address, pki, token)
        with Server(*guards, *follow, *METRICS) as follower:
            reader = make(
                owner.address, replicas="owner", token=guarding.secret("predict"), **access
            )
            with pytest.raises(PermissionDenied, match=r"follow.*replicas='owner' asks the owner"):
                reader.predict(IMAGES[0])
            client = make(
                owner.address, replicas="owner", token=guarding.secret("follow"), **access
            )

            def is_found() -> bool:
                client.predict(IMAGES[0])
                return answered(follower) > 0

            assert wait_until(is_found, FOUND_SECONDS)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"address": None}, "address: got None; must be HOST:PORT, to ask for its list"),
        ({"tls_ca": "public"}, "tls_server_name: missing; gRPC looks for one name"),
    ],
)
def test_what_the_list_needs(make: MakeClient, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{re.escape(text)}"):
        make(**{"address": "127.0.0.1:50051", **settings}, replicas="owner")


def test_the_commands_take_the_owners_list(owner: Count, follower: Count) -> None:
    owner.listed = [follower.address]
    parameters = bytes(785 * 4)
    model = pb.GetModelResponse(
        weights=parameters[4:],
        bias=0,
        version=9,
        digest=hashlib.sha256(parameters).hexdigest(),
        device="cpu",
        start=11,
    )
    follower.liar.say("GetModel", model.SerializeToString())
    command = [sys.executable, "-m", "mnist37_client.cli", "model", "--json"]
    process = subprocess.run(
        [*command, "--address", owner.address, "--replicas", "owner"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout)["version"] == 9
