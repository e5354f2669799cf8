"""Tests of followers of a follower: what the owner says reaches them unchanged."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.following import TIMEOUT, Server, refusal
from support.local_web import LocalWeb
from support.scraping import wait_until

PIXELS = bytes(range(196)) * 4


@pytest.fixture(scope="module")
def leaf(follower: Server) -> Iterator[Server]:
    """Return a follower of the follower."""
    with Server("--follow", follower.address, "--metrics-address", "127.0.0.1:0") as server:
        yield server.wait_until_serving()


@pytest.fixture(autouse=True)
def _in_step(owner: Server, follower: Server, leaf: Server) -> None:
    version = owner.step()
    follower.wait_for(version)
    leaf.wait_for(version)


def first_message(server: Server, **fields: Any) -> pb.FollowResponse:
    stub = mnist37_pb2_grpc.Mnist37ServiceStub(server.channel)
    call = stub.Follow(pb.FollowRequest(**fields), timeout=TIMEOUT)
    message: pb.FollowResponse = next(call)
    call.cancel()
    return message


@pytest.mark.parametrize(
    "request_",
    [
        pb.PredictRequest(pixels=PIXELS),
        pb.GetLossRequest(split=pb.SPLIT_VALID),
        pb.GetModelRequest(),
        pb.GetModelRequest(version=0),  # asked up the tree
        pb.GetModelRequest(tag="best@1"),
    ],
)
def test_answers_are_the_owners_to_the_bit(owner: Server, leaf: Server, request_: Message) -> None:
    rpc = type(request_).__name__.removesuffix("Request")
    assert leaf.call(rpc, request_) == owner.call(rpc, request_)


def test_a_tag_is_looked_up_by_the_owner_each_time(owner: Server, leaf: Server) -> None:
    for _ in range(2):
        version = owner.step()
        owner.call("TagVersion", pb.TagVersionRequest(name="in-the-tree", version=version))
        assert leaf.model(tag="in-the-tree") == owner.model(version=version)


def test_not_found_is_the_owners_answer(owner: Server, leaf: Server) -> None:
    request = pb.GetModelRequest(tag="none-such")
    ours, owners = (refusal(server, "GetModel", request) for server in (leaf, owner))
    assert (ours.code, ours.text, ours.reason) == (owners.code, owners.text, owners.reason)


def test_a_version_passes_through_unchanged(owner: Server, follower: Server, leaf: Server) -> None:
    version = owner.train()
    leaf.wait_for(version)
    told, passed_on, again = map(first_message, (owner, follower, leaf))
    for name in ("position", "parameters", "origin", "run", "starts"):
        assert getattr(told, name) == getattr(passed_on, name) == getattr(again, name), name
    assert told.run
    assert not told.HasField("age")
    assert not told.owner
    assert not told.followers
    assert passed_on.HasField("age")
    assert (passed_on.owner, again.owner) == (owner.address, owner.address)
    assert len(passed_on.followers) == 1
    assert again.followers[:1] == passed_on.followers
    assert len(set(again.followers)) == 2
    assert not passed_on.owner_lost


def test_what_is_held_is_not_sent(follower: Server) -> None:
    held = first_message(follower)
    again = first_message(follower, position=held.position)
    assert again.position == held.position
    assert not again.parameters


def test_floors_are_kept(owner: Server, leaf: Server) -> None:
    start = owner.model().start
    version = owner.step()
    assert leaf.model(start=start, min_version=version).version == version
    behind = refusal(leaf, "GetModel", pb.GetModelRequest(min_version=version + 1))
    assert (behind.code, behind.reason) == (grpc.StatusCode.UNAVAILABLE, "BEHIND")
    # All the way to the owner is heard, so a start that is not known is of another history.
    lost = refusal(leaf, "GetModel", pb.GetModelRequest(start=start + 1))
    assert (lost.code, lost.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_LOST")


def test_what_only_the_owner_does_is_refused_with_the_owners_address(
    owner: Server, follower: Server, leaf: Server
) -> None:
    refused = refusal(leaf, "Step", pb.StepRequest())
    assert refused.reason == "NOT_OWNER"
    assert refused.metadata == {"owner": owner.address}
    assert owner.address in refused.text
    assert follower.address not in refused.text


def test_each_server_lists_those_who_follow_itself(
    owner: Server, follower: Server, leaf: Server
) -> None:
    for server, listed in ((owner, [follower]), (follower, [leaf]), (leaf, [])):
        found = server.call("ListFollowers", pb.ListFollowersRequest()).followers
        assert [known.address for known in found] == [known.address for known in listed]
    assert follower.metric("mnist37_followers") == 1
    assert leaf.metric("mnist37_followers") == 0
    assert wait_until(lambda: follower.metric("mnist37_follower_lag_seconds") == 0)
    assert leaf.metric("mnist37_follower_connected") == 1
    age = leaf.metric("mnist37_follower_age_seconds")
    assert age is not None
    assert age >= 0


def test_a_follower_has_at_most_max_followers(owner: Server) -> None:
    with Server("--follow", owner.address, "--max-followers", "1") as middle:
        middle.wait_until_serving()
        with Server("--follow", middle.address) as leaf:
            leaf.wait_until_serving()
            refused = refusal(middle, "Follow", pb.FollowRequest())
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert refused.reason == "TOO_MANY_STREAMS"


def test_the_page_of_a_leaf_shows_each_version_as_it_comes(owner: Server, leaf: Server) -> None:
    with LocalWeb(leaf.address) as web:
        connection = http.client.HTTPConnection(web.address, timeout=30)
        headers = {"Origin": web.url, "Content-Type": "application/json"}
        connection.request("POST", "/page/events", "{}", headers)
        events = connection.getresponse()
        assert events.status == 200

        def shown() -> int:
            """Return the version of the next event that shows one."""
            while (line := events.readline()) != b"event: model\n":
                assert line, "the events have ended"
            version: int = json.loads(events.readline().removeprefix(b"data: "))["version"]
            return version

        assert shown() == owner.model().version
        for _ in range(3):
            version = owner.step()
            while shown() < version:
                pass
        (page,) = leaf.call("ListFollowers", pb.ListFollowersRequest()).followers
        assert not page.id, "it follows, and does not ask again and again"
        connection.close()
