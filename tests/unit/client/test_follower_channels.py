"""Tests of the channels to followers that change, and of when their list is asked for."""

from __future__ import annotations

import time
from typing import Any

import pytest
from mnist37_client import Unavailable
from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.methods import follower_list
from mnist37_client._rpc.methods.follower_list import FollowerList
from mnist37_client._rpc.replicas import Replicas
from mnist37_client._rpc.transport.follower_channels import FollowerChannels
from mnist37_protos.v1 import mnist37_pb2 as pb


def followers(replicas: Any = "owner") -> FollowerList:
    settings = ConnectionSettings("127.0.0.1:1", replicas, None, None, None, None, None, False)
    return FollowerList(settings)


def content(*ports: int) -> bytes:
    answer = pb.ListFollowersResponse(
        followers=[pb.Follower(id=f"{port}", address=f"127.0.0.1:{port}") for port in ports]
    )
    for follower in answer.followers:
        follower.connected_at.GetCurrentTime()
    return answer.SerializeToString()


def test_a_channel_is_closed_after_its_last_call() -> None:
    listed = followers()
    made: list[str] = []
    closed: list[str] = []

    def connect(replicas: Replicas) -> tuple[str, Any]:
        made.append(replicas.target)
        return replicas.target, None

    channels = FollowerChannels(listed, connect, closed.append)
    with pytest.raises(Unavailable):
        channels.begin_call()
    listed.record(content(1, 2))
    first = channels.begin_call()
    listed.record(content(2, 1))  # the same ones
    assert channels.begin_call() is first
    listed.record(content(3))
    second = channels.begin_call()
    assert made == ["ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:3"]
    channels.end_call(first)
    channels.begin_call()
    assert not closed
    channels.end_call(first)
    listed.record(content())
    assert channels.begin_call() is second
    assert closed == made[:1]
    assert channels.take_all() == made[1:]


def test_the_list_is_due_after_a_while_and_sooner_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    listed = followers()
    assert listed.may_have_some
    assert not listed.is_known
    assert not listed.begin_refresh()  # the first read asks, and waits for the answer
    listed.record(content(1))
    assert listed.is_known
    now += follower_list.REFRESH_SECONDS / 2 - 0.1
    assert not listed.begin_refresh()
    now += follower_list.REFRESH_SECONDS / 2 + 0.1
    assert listed.begin_refresh()
    assert not listed.begin_refresh()
    now += 0.1
    listed.record_failure()
    assert not listed.begin_refresh()
    now += follower_list.RETRY_SECONDS
    assert listed.begin_refresh()
    listed.record(content())
    now += follower_list.RETRY_SECONDS
    assert listed.begin_refresh()


def test_named_followers_are_never_asked_for() -> None:
    named = followers(["127.0.0.1:1"])
    assert named.is_known
    named.record_failure()
    assert not named.begin_refresh()
    assert not followers(None).may_have_some
