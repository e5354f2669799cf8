"""Tests of followers of a follower, of which one on the way to the owner is lost, or misled."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.storage.store import Store
from support.following import SERVING, FailedCall, Server, refusal
from support.relay import Relay
from support.scraping import wait_until
from support.twin import datasets

from mnist37.host import Host

TIMEOUT = 30  # seconds, of which a busy machine takes many
METRICS = ("--metrics-address", "127.0.0.1:0")
PREDICT = pb.PredictRequest(pixels=bytes(784))


@pytest.fixture
def leave() -> Iterator[ExitStack]:
    """Return a stack of the processes that a test starts."""
    with ExitStack() as stack:
        yield stack


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def soon(holds: Callable[..., bool]) -> bool:
    """Wait until a condition holds; return False if it does not."""
    return wait_until(holds, TIMEOUT)


def prediction(server: Server) -> str:
    """Return the version of a prediction as text, or the reason of its refusal."""
    try:
        return str(server.call("Predict", PREDICT).version)
    except FailedCall as refused:
        return refused.reason


def reason(server: Server, start: int, version: int = 0) -> str:
    """Return why a read with this floor is refused."""
    request = pb.GetModelRequest(start=start, min_version=version)
    return refusal(server, "GetModel", request).reason


def test_the_loss_of_the_owner_is_told_to_the_leaves(leave: ExitStack, tmp_path: Path) -> None:
    # Each begins before the one that it follows: none has a version.
    address = free_address()
    middle = leave.enter_context(Server("--follow", address, *METRICS))
    leaf = leave.enter_context(Server("--follow", middle.address, *METRICS))
    strict = leave.enter_context(Server("--follow", middle.address, "--max-age", "2"))
    refused = refusal(middle, "Follow", pb.FollowRequest())
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OWNER_UNREACHABLE")
    assert refused.metadata["owner"] == address
    assert leaf.health() != SERVING
    # What it cannot know yet, it learns from the refusal.
    assert soon(lambda: refusal(leaf, "Step", pb.StepRequest()).metadata == {"owner": address})

    # The owner comes: all get its version.
    options = ("--device", "cpu", "--state", str(tmp_path), "--address", address)
    owner = leave.enter_context(Server(*options))
    for server in (leaf, strict):
        server.wait_until_serving().wait_for(owner.step())
    newest = owner.model()
    assert leaf.metric("mnist37_follower_connected") == 1
    unknown = newest.start + 1
    assert soon(lambda: reason(leaf, unknown) == "HISTORY_LOST")

    # The owner is gone. The middle one is there, and sends on; the leaves know better.
    owner.kill()
    assert soon(lambda: leaf.metric("mnist37_follower_connected") == 0)
    assert reason(leaf, unknown) == "BEHIND", "it may be the start of the owner's next process"
    assert soon(lambda: prediction(strict) == "STALE")
    assert leaf.model() == middle.model() == newest
    above, age = (s.metric("mnist37_follower_age_seconds") for s in (middle, leaf))
    assert age is not None
    assert above is not None
    assert age > above - 1, "the leaf's version is as old as that of the follower it follows"
    refused = refusal(leaf, "GetModel", pb.GetModelRequest(tag="any"))
    assert refused.reason == "OWNER_UNREACHABLE"
    assert address in refused.text, "it is the owner that cannot be reached"
    with Server("--follow", middle.address, *METRICS) as late:
        assert late.wait_until_serving().model() == newest
        assert late.metric("mnist37_follower_connected") == 0

    # It comes back with its state, and a new start.
    owner = leave.enter_context(Server(*options))
    version = owner.step()
    for server in (leaf, strict):
        assert soon(lambda s=server: prediction(s) == str(version))
    assert leaf.model() == owner.model()
    assert leaf.model(start=newest.start, min_version=newest.version).version == version
    assert leaf.metric("mnist37_follower_resets_total") == 0
    assert soon(lambda: leaf.metric("mnist37_follower_connected") == 1)
    log = leaf.stop()[1]
    assert log.count("the owner is lost to the server that is followed") == 1, log
    assert f"owner={address}" in log
    assert f"followed={middle.address}" in log


def test_a_paused_owner_makes_the_leaves_old_though_the_middle_one_speaks(
    leave: ExitStack,
) -> None:
    owner = leave.enter_context(Server("--device", "cpu"))
    middle = leave.enter_context(Server("--follow", owner.address)).wait_until_serving()
    leaf = leave.enter_context(Server("--follow", middle.address, "--max-age", "2"))
    leaf.wait_until_serving().wait_for(version := owner.step())
    owner.pause()
    try:
        assert soon(lambda: prediction(leaf) == "STALE")
        assert prediction(middle) == str(version)
    finally:
        owner.resume()
    assert soon(lambda: prediction(leaf) == str(version))


def test_a_restored_backup_is_another_history_down_to_the_leaves(
    leave: ExitStack, tmp_path: Path
) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    first = LiveModel(datasets(), Host(), Store(state))
    first.stop_writing()
    first.close()
    shutil.copytree(state, backup)
    options = ("--device", "cpu", "--state", str(state), "--address", free_address())
    owner = leave.enter_context(Server(*options))
    middle = leave.enter_context(Server("--follow", owner.address)).wait_until_serving()
    leaf = leave.enter_context(Server("--follow", middle.address, *METRICS)).wait_until_serving()
    owner.step()
    owner.step()
    lost = owner.model()
    leaf.wait_for(lost.version)
    owner.kill()
    shutil.rmtree(state)
    backup.rename(state)
    restored = leave.enter_context(Server(*options))
    restored.call("Initialize", pb.InitializeRequest(seed=7))
    newest = restored.model()
    assert newest.version < lost.version
    assert soon(lambda: leaf.model() == newest)
    assert reason(leaf, lost.start, lost.version) == "HISTORY_LOST"
    refused = refusal(leaf, "GetModel", pb.GetModelRequest(version=lost.version))
    assert refused.code is grpc.StatusCode.NOT_FOUND, "no version of the lost history is left"
    assert leaf.metric("mnist37_follower_resets_total") == 1


def test_a_leaf_serves_on_without_the_one_it_follows_and_comes_back_to_it(
    leave: ExitStack, owner: Server
) -> None:
    address = free_address()
    options = ("--follow", owner.address, "--address", address)
    middle = leave.enter_context(Server(*options))
    leaf = leave.enter_context(Server("--follow", address, *METRICS)).wait_until_serving()
    version = owner.step()
    leaf.wait_for(version)
    middle.kill()
    later = owner.step()
    assert soon(lambda: leaf.metric("mnist37_follower_connected") == 0)
    assert leaf.model().version == version
    leave.enter_context(Server(*options))
    leaf.wait_for(later)
    assert leaf.model() == owner.model()
    assert leaf.metric("mnist37_follower_resets_total") == 0


def test_followers_without_an_owner_notice_that_they_follow_each_other(leave: ExitStack) -> None:
    addresses = [free_address() for _ in range(3)]
    servers = [
        leave.enter_context(Server("--follow", followed, "--address", address))
        for address, followed in zip(addresses, [*addresses[1:], addresses[0]], strict=True)
    ]
    for server in servers:
        assert soon(lambda s=server: "3 followers are in a circle" in s.log_so_far), (
            server.log_so_far
        )
        assert server.health() != SERVING
    address = free_address()
    followed = address.replace("127.0.0.1", "localhost")
    itself = leave.enter_context(Server("--follow", followed, "--address", address))
    assert soon(lambda: f"{followed} is this server itself" in itself.log_so_far)


def test_a_circle_of_followers_with_versions_is_noticed_and_grows_old(
    leave: ExitStack, owner: Server
) -> None:
    relay = leave.enter_context(Relay(owner.address))
    upper = leave.enter_context(Server("--follow", relay.address, *METRICS)).wait_until_serving()
    lower = leave.enter_context(
        Server("--follow", upper.address, "--max-age", "2", *METRICS)
    ).wait_until_serving()
    relay.route(lower.address)
    relay.cut()
    for server in (upper, lower):
        assert soon(lambda s=server: s.metric("mnist37_follower_connected") == 0)
    assert soon(lambda: prediction(lower) == "STALE")
    relay.route(owner.address)
    relay.cut()
    version = owner.step()
    for server in (upper, lower):
        assert soon(lambda s=server: prediction(s) == str(version))
        assert server.metric("mnist37_follower_resets_total") == 0
        assert "2 followers are in a circle" in server.log_so_far
