"""Tests of a follower's answers: they are the owner's to the bit, or they name the owner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from mnist37_client import validation_images
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server import errors
from mnist37_server.domain.position import Position
from mnist37_server.follower.upstream import Upstream
from support.following import FailedCall, Server, refusal
from support.scraping import wait_until

IMAGES, LABELS = validation_images()
PIXELS = IMAGES[:70].tobytes()
BATCH = pb.Batch(pixels=IMAGES.tobytes(), labels=LABELS.tobytes())
UNKNOWN = 10**6
TENSOR = inference.ModelInferRequest.InferInputTensor(
    name="pixels", datatype="UINT8", shape=[70, 784]
)

COUNTS = {pb.SPLIT_UNSPECIFIED: len(LABELS), pb.SPLIT_TRAIN: 12_396, pb.SPLIT_VALID: 2_038}

READS: list[tuple[str, Message]] = [
    ("Predict", pb.PredictRequest(pixels=PIXELS)),
    ("PredictStream", pb.PredictRequest(pixels=PIXELS)),
    ("GetLoss", pb.GetLossRequest(batch=BATCH)),
    ("GetLoss", pb.GetLossRequest(split=pb.SPLIT_TRAIN)),
    ("GetLoss", pb.GetLossRequest(split=pb.SPLIT_VALID)),
    ("GetModel", pb.GetModelRequest()),
]

OWNERS_WORK: list[tuple[str, Message]] = [
    ("Step", pb.StepRequest()),
    ("Train", pb.TrainRequest(epochs=1)),
    ("Initialize", pb.InitializeRequest()),
    ("Restore", pb.RestoreRequest(version=0)),
    ("Import", pb.ImportRequest(weights=bytes(3136), bias=0)),
    ("TagVersion", pb.TagVersionRequest(name="any")),
    ("DeleteTag", pb.DeleteTagRequest(name="any")),
    ("ListVersions", pb.ListVersionsRequest()),
    ("ListTags", pb.ListTagsRequest()),
    ("ListRuns", pb.ListRunsRequest()),
    ("WatchRun", pb.WatchRunRequest()),
]


@pytest.fixture(autouse=True)
def _in_step(owner: Server, follower: Server) -> None:
    follower.wait_for(owner.step())


def at(request: Message, **fields: Any) -> Any:
    """Return a copy of a request with these fields."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


@pytest.mark.parametrize(("rpc", "request_"), READS)
def test_answers_are_the_owners_to_the_bit(
    owner: Server, follower: Server, rpc: str, request_: Message
) -> None:
    tag = "best@1"
    for request in (request_, at(request_, version=0), at(request_, tag=tag)):
        answer = follower.call(rpc, request)
        assert answer == owner.call(rpc, request)
        if isinstance(request, pb.GetLossRequest):
            assert answer.count == COUNTS[request.split]


def test_the_open_inference_protocol_is_answered(owner: Server, follower: Server) -> None:
    request = inference.ModelInferRequest(
        model_name="mnist37", inputs=[TENSOR], raw_input_contents=[PIXELS]
    )
    request.parameters["start"].int64_param = 0
    assert follower.infer(request) == owner.infer(request)
    assert follower.infer(inference.ModelReadyRequest(name="mnist37"), "ModelReady").ready
    versions = follower.infer(
        inference.ModelMetadataRequest(name="mnist37"), "ModelMetadata"
    ).versions
    assert str(owner.model().version) in versions


def test_tritons_extensions_are_answered(owner: Server, follower: Server) -> None:
    config = inference.ModelConfigRequest(name="mnist37")
    assert follower.infer(config, "ModelConfig") == owner.infer(config, "ModelConfig")
    index = inference.RepositoryIndexRequest(ready=True)
    assert follower.infer(index, "RepositoryIndex") == owner.infer(index, "RepositoryIndex")
    request = inference.ModelInferRequest(
        model_name="mnist37", inputs=[TENSOR], raw_input_contents=[PIXELS]
    )

    def statistics(server: Server) -> Any:
        (entry,) = server.infer(inference.ModelStatisticsRequest(), "ModelStatistics").model_stats
        return entry

    before, owners = statistics(follower), statistics(owner)
    requests = [request, at(request, model_version="x"), request]
    first, wrong, last = follower.infer(iter(requests), "ModelStreamInfer")
    assert first == last
    assert first.infer_response.raw_output_contents == owner.infer(request).raw_output_contents
    assert "there is no tag 'x'" in wrong.error_message
    after = statistics(follower)
    assert after.inference_count - before.inference_count == 2 * 70
    assert after.execution_count - before.execution_count == 2
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert statistics(owner).execution_count - owners.execution_count == 1, "its own alone"


def test_every_method_has_been_tried() -> None:
    tried = {rpc for rpc, _ in [*READS, *OWNERS_WORK]}
    assert tried | {"Follow", "ListFollowers"} == {  # which test_tree.py tries
        method.name for method in pb.DESCRIPTOR.services_by_name["Mnist37Service"].methods
    }


@pytest.mark.parametrize(("rpc", "request_"), OWNERS_WORK)
def test_what_only_the_owner_does_is_refused(
    owner: Server, follower: Server, rpc: str, request_: Message
) -> None:
    before = owner.model().version
    refused = refusal(follower, rpc, request_)
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.reason == "NOT_OWNER"
    assert refused.metadata == {"owner": owner.address}
    assert owner.address in refused.text
    assert refused.retry_after is None
    assert owner.model().version == before


def test_versions_rise_and_each_is_the_owners(owner: Server, follower: Server) -> None:
    seen = []
    for _ in range(30):
        version = owner.step()
        floor = pb.GetModelRequest(start=owner.model().start, min_version=version)
        seen.append(follower.call("GetModel", floor))
    assert [model.version for model in seen] == sorted(model.version for model in seen)
    for model in seen:
        assert model.digest == owner.model(version=model.version).digest


def test_older_versions_come_from_the_owner_once(owner: Server, follower: Server) -> None:
    # Version 0 was committed before the follower came.
    assert follower.model(version=0) == owner.model(version=0)
    before = owner.metric(
        "grpc_server_started_total",
        grpc_type="unary",
        grpc_service="mnist37.v1.Mnist37Service",
        grpc_method="GetModel",
    )
    for _ in range(5):
        follower.model(version=0)
    after = owner.metric(
        "grpc_server_started_total",
        grpc_type="unary",
        grpc_service="mnist37.v1.Mnist37Service",
        grpc_method="GetModel",
    )
    assert after == before


def test_a_version_is_fetched_from_an_owner_of_the_same_history_alone(owner: Server) -> None:
    upstream = Upstream(owner.address, None, None, "any", "")
    upstream.connect()
    model = owner.model()
    fetched, start = upstream.fetch("best@1", Position(model.start, model.version))
    assert start == model.start
    assert fetched.digest == owner.model(tag="best@1").digest
    with pytest.raises(errors.Unavailable, match="the owner has another history") as refused:
        upstream.fetch("best@1", Position(model.start + 1, 0))
    assert refused.value.reason is errors.Reason.BEHIND
    upstream.close()


def test_a_slow_reader_is_sent_few_old_versions(owner: Server) -> None:
    upstream = Upstream(owner.address, None, None, "", "")
    upstream.connect()
    updates = iter(upstream.follow(None))
    next(updates)
    newest = [owner.step() for _ in range(200)][-1]  # meanwhile nothing is read
    versions = list(iter(lambda: next(updates).position.version, newest))
    assert len(versions) <= 5, versions
    assert versions == sorted(versions)
    upstream.close()


def test_a_tag_is_looked_up_again_each_time(owner: Server, follower: Server) -> None:
    for _ in range(2):
        version = owner.step()
        owner.call("TagVersion", pb.TagVersionRequest(name="moving", version=version))
        assert follower.model(tag="moving") == owner.model(version=version)


@pytest.mark.parametrize("fields", [{"version": UNKNOWN}, {"tag": "none-such"}])
def test_not_found_is_the_owners_answer(
    owner: Server, follower: Server, fields: dict[str, Any]
) -> None:
    request = pb.GetModelRequest(**fields)
    ours, owners = (refusal(server, "GetModel", request) for server in (follower, owner))
    assert (ours.code, ours.text, ours.reason, ours.metadata) == (
        grpc.StatusCode.NOT_FOUND, owners.text, owners.reason, owners.metadata
    )  # fmt: skip


def test_floors_are_kept(owner: Server, follower: Server) -> None:
    model = owner.model()
    behind = refusal(follower, "GetModel", pb.GetModelRequest(min_version=model.version + 1))
    assert (behind.code, behind.reason) == (grpc.StatusCode.UNAVAILABLE, "BEHIND")
    lost = refusal(follower, "GetModel", pb.GetModelRequest(start=model.start + 1))
    assert (lost.code, lost.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_LOST")


def test_the_owner_lists_the_follower(owner: Server, follower: Server) -> None:
    (listed,) = owner.call("ListFollowers", pb.ListFollowersRequest()).followers
    assert listed.id.startswith("follower-")
    assert listed.address == follower.address


def test_the_metrics_of_both(owner: Server, follower: Server) -> None:
    assert owner.metric("mnist37_followers") == 1
    assert wait_until(lambda: owner.metric("mnist37_follower_lag_seconds") == 0)
    assert follower.metric("mnist37_model_version") == owner.model().version
    assert follower.metric("mnist37_follower_connected") == 1
    assert follower.metric("mnist37_follower_resets_total") == 0
    age = follower.metric("mnist37_follower_age_seconds")
    assert age is not None
    assert 0 <= age < 2


def test_a_follower_loads_neither_torch_nor_sqlite(follower: Server) -> None:
    loaded = Path(f"/proc/{follower.process.pid}/maps").read_text()
    assert "numpy" in loaded
    assert "torch" not in loaded
    assert "sqlite" not in loaded


def test_a_callers_mistake_is_the_callers(follower: Server) -> None:
    with pytest.raises(FailedCall, match="INVALID_FIELD"):
        follower.call("Predict", pb.PredictRequest(pixels=b"short"))
