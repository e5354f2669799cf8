"""Tests of a follower whose owner is missing, paused, killed, started again or replaced."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.storage.store import Store
from support.following import SERVING, FailedCall, Server, refusal
from support.scraping import wait_until
from support.twin import datasets

from mnist37.host import Host

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "mnist37.v1.Mnist37Service", "inference.GRPCInferenceService")
PREDICT = pb.PredictRequest(pixels=bytes(784))


UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "OWNER_UNREACHABLE", 1)


@pytest.fixture
def leave() -> Iterator[ExitStack]:
    """Return a stack of the processes that a test starts."""
    with ExitStack() as stack:
        yield stack


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def status(refused: FailedCall) -> tuple[grpc.StatusCode, str, float | None]:
    return refused.code, refused.reason, refused.retry_after


def test_a_follower_serves_from_its_first_version_on_whatever_becomes_of_its_owner(
    leave: ExitStack, tmp_path: Path
) -> None:
    # The owner is not there yet.
    address = free_address()
    follower = leave.enter_context(Server("--follow", address, "--metrics-address", "127.0.0.1:0"))
    assert [follower.health(name) for name in SERVICES] == [NOT_SERVING] * 3
    for rpc, request in (("Predict", PREDICT), ("GetModel", pb.GetModelRequest(tag="best@1"))):
        refused = refusal(follower, rpc, request)
        assert status(refused) == UNREACHABLE
        assert address in refused.text
    assert not follower.infer(inference.ModelReadyRequest(name="mnist37"), "ModelReady").ready
    (model,) = follower.infer(inference.RepositoryIndexRequest(), "RepositoryIndex").models
    assert (model.state, model.version) == ("UNAVAILABLE", "")
    assert address in model.reason
    assert not follower.infer(
        inference.RepositoryIndexRequest(ready=True), "RepositoryIndex"
    ).models
    assert refusal(follower, "Step", pb.StepRequest()).reason == "NOT_OWNER"
    assert follower.metric("mnist37_follower_connected") == 0
    assert follower.metric("mnist37_follower_age_seconds") is None
    assert follower.metric("mnist37_model_version") is None

    # It comes.
    owner_options = ("--device", "cpu", "--state", str(tmp_path), "--address", address)
    owner = leave.enter_context(Server(*owner_options))
    follower.wait_until_serving()
    assert [follower.health(name) for name in SERVICES] == [SERVING] * 3
    follower.wait_for(heard := owner.step())
    newest = owner.model(version=owner.step())
    follower.wait_for(newest.version)
    owner.call("TagVersion", pb.TagVersionRequest(name="mine", version=0))

    # It is killed.
    owner.kill()
    assert follower.model() == newest
    assert follower.model(version=heard).version == heard
    for fields in ({"tag": "mine"}, {"version": 10**6}):
        refused = refusal(follower, "GetModel", pb.GetModelRequest(**fields))
        assert status(refused) == UNREACHABLE
    assert follower.health() == SERVING
    # A start that is not known may be that of the owner that comes next.
    unknown = pb.GetModelRequest(start=newest.start + 1)
    assert refusal(follower, "GetModel", unknown).reason == "BEHIND"
    assert follower.metric("mnist37_follower_connected") == 0

    # It comes back, with what it had.
    owner = leave.enter_context(Server(*owner_options))
    version = owner.step()
    assert wait_until(lambda: follower.model().version == version)
    assert follower.model() == owner.model()
    assert follower.model(start=newest.start, min_version=newest.version).version == version
    assert follower.model(tag="mine") == owner.model(version=0)
    assert follower.metric("mnist37_follower_resets_total") == 0
    exit_status, log = follower.stop()
    assert exit_status == 0
    assert log.count("following the owner") == 2, log
    assert log.count("the owner is lost") == 1, log
    assert log.count("the owner cannot be followed") <= 2, log
    assert "another history" not in log


def test_a_restored_backup_is_another_history(leave: ExitStack, tmp_path: Path) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    first = LiveModel(datasets(), Host(), Store(state))
    first.stop_writing()
    first.close()
    shutil.copytree(state, backup)
    options = ("--device", "cpu", "--state", str(state), "--address", free_address())
    owner = leave.enter_context(Server(*options))
    follower = leave.enter_context(
        Server("--follow", owner.address, "--metrics-address", "127.0.0.1:0")
    ).wait_until_serving()
    old = owner.model(version=owner.step())
    lost = owner.model(version=owner.step())
    follower.wait_for(lost.version)
    owner.kill()
    shutil.rmtree(state)
    backup.rename(state)
    restored = leave.enter_context(Server(*options))
    restored.call("Initialize", pb.InitializeRequest(seed=7))
    newest = restored.model()
    assert newest.version == old.version
    assert newest.digest != old.digest
    assert wait_until(lambda: follower.model() == newest)
    # No version of the lost history is left, under no name.
    refused = refusal(follower, "GetModel", pb.GetModelRequest(version=lost.version))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    for floor in (
        pb.GetModelRequest(start=lost.start, min_version=lost.version),
        pb.GetModelRequest(start=old.start),
    ):
        refused = refusal(follower, "GetModel", floor)
        assert status(refused) == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_LOST", None)
    assert follower.metric("mnist37_follower_resets_total") == 1
    assert "the owner has another history" in follower.stop()[1]


def test_an_owner_that_renews_its_connections_is_not_lost(leave: ExitStack) -> None:
    options = ("--device", "cpu", "--max-connection-age", "1", "--message-timeout", "1")
    owner = leave.enter_context(Server(*options))
    options = ("--follow", owner.address, "--log-level", "debug", "--max-age", "1.5")
    follower = leave.enter_context(Server(*options)).wait_until_serving()
    deadline = time.monotonic() + 5  # a connection is 1.8 to 2.2 s old when its streams end
    while time.monotonic() < deadline:
        assert answered_version(follower) is not None
        time.sleep(0.02)
    follower.wait_for(owner.step())
    owner.kill()
    assert wait_until(lambda: answered_version(follower) is None)
    log = follower.stop()[1]
    before, lost, after = log.partition("WARNING the owner is lost")
    assert before.count("INFO following the owner") == 1, log
    assert before.count("DEBUG following the owner on a new connection") >= 2, log
    assert "WARNING" not in before, log
    assert lost, log
    assert "the owner is lost" not in after, log


def test_neither_a_paused_owner_nor_a_paused_follower_makes_an_answer_too_old(
    leave: ExitStack, owner: Server
) -> None:
    strict = leave.enter_context(Server("--follow", owner.address, "--max-age", "1.5"))
    strict.wait_until_serving().wait_for(owner.step())
    # The follower's own timers have not run when it answers the first reads after a pause.
    strict.pause()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        version = owner.step()
        time.sleep(0.05)
    reads = [predict_later(strict) for _ in range(3)]
    strict.resume()
    for read in reads:
        if read.exception() is None:
            assert read.result().version == version
        else:
            assert "may answer for 1.5" in str(read.exception())
    assert wait_until(lambda: answered_version(strict) == version)
    owner.pause()
    try:
        assert wait_until(lambda: answered_version(strict) is None)
        stale = refusal(strict, "Predict", PREDICT)
        assert status(stale) == (grpc.StatusCode.UNAVAILABLE, "STALE", 1)
        time.sleep(2)
    finally:
        owner.resume()
    assert wait_until(lambda: answered_version(strict) == version)
    log = strict.stop()[1]
    assert "this process was paused" in log
    assert "nothing came for 3 seconds" in log


def predict_later(server: Server) -> grpc.Future[pb.PredictResponse]:
    call: grpc.Future[pb.PredictResponse] = server.channel.unary_unary(
        "/mnist37.v1.Mnist37Service/Predict",
        pb.PredictRequest.SerializeToString,
        pb.PredictResponse.FromString,
    ).future(PREDICT, timeout=10)
    return call


def answered_version(server: Server) -> int | None:
    """Return the version of a prediction; None if it is refused."""
    try:
        version: int = server.call("Predict", PREDICT).version
    except FailedCall:
        return None
    return version
