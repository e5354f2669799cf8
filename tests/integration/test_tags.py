"""Tests of tags: names for versions, which the server retains as long as a tag points to them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.inference import open_inference_pb2_grpc as inference_grpc
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.scraping import wait_until

IMAGE = validation_images()[0][0].tobytes()


@pytest.fixture
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield mnist37_pb2_grpc.Mnist37ServiceStub(channel)


def tag(stub: Any, name: str, **values: Any) -> int:
    version: int = stub.TagVersion(pb.TagVersionRequest(name=name, **values)).version
    return version


def tags(stub: Any) -> dict[str, int]:
    return {found.name: found.version for found in stub.ListTags(pb.ListTagsRequest()).tags}


@pytest.fixture
def name(stub: Any) -> Iterator[str]:
    """Return the name of a tag, which is deleted afterwards."""
    name = f"Test-{uuid.uuid4().hex[:8]}._"
    yield name
    if name in tags(stub):
        stub.DeleteTag(pb.DeleteTagRequest(name=name))


def code_of(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value.code(), str(caught.value.details())


def test_every_read_takes_a_tag(client: Client, stub: Any, name: str, address: str) -> None:
    version = client.step().version
    digest = client.get_model().digest
    assert tag(stub, name) == version
    client.step()
    assert stub.GetModel(pb.GetModelRequest(tag=name)).digest == digest
    assert stub.Predict(pb.PredictRequest(pixels=IMAGE, tag=name)).version == version
    streamed = stub.PredictStream(iter([pb.PredictRequest(pixels=IMAGE, tag=name)]))
    assert [answer.version for answer in streamed] == [version]
    loss = stub.GetLoss(pb.GetLossRequest(split=pb.SPLIT_VALID, tag=name))
    assert loss.version == version
    with grpc.insecure_channel(address) as channel:
        oip: Any = inference_grpc.GRPCInferenceServiceStub(channel)
        request = inference.ModelInferRequest(model_name="mnist37", model_version=name)
        request.inputs.add(name="pixels", datatype="UINT8", shape=[1, 784])
        request.raw_input_contents.append(IMAGE)
        assert oip.ModelInfer(request).model_version == str(version)
        assert oip.ModelReady(inference.ModelReadyRequest(name="mnist37", version=name)).ready


def test_a_tag_moves_and_is_deleted(client: Client, stub: Any, name: str) -> None:
    first, second = client.step().version, client.step().version
    assert tag(stub, name, version=first) == first
    assert tags(stub)[name] == first
    assert tag(stub, name, version=second) == second
    assert tags(stub)[name] == second
    assert stub.DeleteTag(pb.DeleteTagRequest(name=name)).version == second
    assert name not in tags(stub)
    code, text = code_of(stub.GetModel, pb.GetModelRequest(tag=name))
    assert (code, name in text) == (grpc.StatusCode.NOT_FOUND, True)


def test_a_change_of_a_tag_happens_once(client: Client, stub: Any, name: str) -> None:
    client.step()
    named, deleted = uuid.uuid4().hex, uuid.uuid4().hex
    version = tag(stub, name, request_id=named)
    client.step()
    assert tag(stub, name, request_id=named) == version, "it must not tag the newest version again"
    again = tag(stub, name)
    assert again == version + 1
    request = pb.DeleteTagRequest(name=name, request_id=deleted)
    assert stub.DeleteTag(request).version == again
    tag(stub, name)
    assert stub.DeleteTag(request).version == again
    assert name in tags(stub), "the repeated request must not delete the new tag"
    reused = pb.TagVersionRequest(name=name, request_id=deleted)
    assert code_of(stub.TagVersion, reused)[0] is grpc.StatusCode.ALREADY_EXISTS
    reused_by_step = pb.StepRequest(request_id=named)
    assert code_of(stub.Step, reused_by_step)[0] is grpc.StatusCode.ALREADY_EXISTS


def test_a_restore_by_tag_is_resolved_once(client: Client, stub: Any, name: str) -> None:
    first = client.step().version
    digest = client.get_model().digest
    tag(stub, name)
    client.step()
    request = pb.RestoreRequest(tag=name, request_id=uuid.uuid4().hex)
    restored = stub.Restore(request).version
    assert client.get_model().digest == digest
    tag(stub, name, version=first + 1)
    assert stub.Restore(request).version == restored, "the tag has moved since"
    assert client.get_model().version == restored
    by_number = pb.RestoreRequest(version=first, request_id=request.request_id)
    assert code_of(stub.Restore, by_number)[0] is grpc.StatusCode.ALREADY_EXISTS


def test_a_run_neither_delays_a_tag_nor_is_delayed(client: Client, stub: Any, name: str) -> None:
    run = client.train(epochs=100_000)
    next(run)
    version = tag(stub, name)
    assert client.runs()[0].state == "running"
    run.cancel()
    assert stub.GetModel(pb.GetModelRequest(tag=name)).version == version


def test_a_tag_leaves_an_interrupted_run_resumable(client: Client, stub: Any, name: str) -> None:
    request_id = uuid.uuid4().hex
    with client.train(epochs=3000, batch_size=4096, request_id=request_id) as run:
        next(run)
    assert wait_until(lambda: client.runs()[0].state == "interrupted")
    version = client.get_model().version
    assert tag(stub, name) == version
    assert client.get_model().version == version, "a tag is no new version"
    with client.train(epochs=3000, batch_size=4096, request_id=request_id) as run:
        assert next(run).epoch > 1


REFUSED_NAMES = (
    *("", "37", "a b", "a/b", "best@7", "@", "x" * 129, "ä", "a\n", "a\0b", "\u0663", "latest@1"),
)


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_that_no_tag_can_have_is_refused(stub: Any, name: str) -> None:
    for call, request in (
        (stub.TagVersion, pb.TagVersionRequest(name=name)),
        (stub.DeleteTag, pb.DeleteTagRequest(name=name)),
    ):
        code, text = code_of(call, request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith("name: got ")
        assert len(text) < 300


def test_a_version_and_a_tag_together_are_refused(stub: Any) -> None:
    for call, request in (
        (stub.Predict, pb.PredictRequest(pixels=IMAGE, version=0, tag="a")),
        (stub.GetModel, pb.GetModelRequest(version=0, tag="a")),
        (stub.GetLoss, pb.GetLossRequest(split=pb.SPLIT_VALID, version=0, tag="a")),
        (stub.Restore, pb.RestoreRequest(version=0, tag="a")),
        (stub.TagVersion, pb.TagVersionRequest(name="b", version=0, tag="a")),
    ):
        code, text = code_of(call, request)
        assert (code, text) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "tag: is set beside version 0; set only one of them",
        )
    long = pb.GetModelRequest(tag="x" * 100_000)
    assert code_of(stub.GetModel, long)[1] == "tag: got 100,000 characters; must have 1 to 128"


@contextmanager
def serve(folder: Path) -> Iterator[tuple[Client, Any]]:
    """Serve the state in a folder; yield a client and a stub of the server."""
    with (
        LocalServer("--device", "cpu", "--state", str(folder)) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield client, mnist37_pb2_grpc.Mnist37ServiceStub(channel)


def test_tagged_and_best_versions_survive_thousands_of_others(tmp_path: Path) -> None:
    # The rate is so large that the validation loss is lowest early, in most of the runs.
    with serve(tmp_path) as (client, stub):
        client.import_model(np.linspace(-1, 1, 784), 0.5)
        tag(stub, "monday")
        expected = {"monday": client.get_model().digest}
        for number in (1, 2):
            curve = list(client.train(40, learning_rate=30 * number, batch_size=6198, seed=9))
            best = min(curve, key=lambda progress: progress.valid_loss)
            expected[f"best@{number}"] = client.get_model(version=best.version).digest
        client.train(1500, batch_size=12396).wait()
        answers = stub.ListTags(pb.ListTagsRequest()).tags
        assert [found.name for found in answers] == ["monday", "best@3", "best@2", "best@1"]
        assert [found.run for found in answers] == [0, 3, 2, 1]
        before = tags(stub)
        found = {name: stub.GetModel(pb.GetModelRequest(tag=name)).digest for name in expected}
        assert found == expected
    with serve(tmp_path) as (_, stub):
        assert tags(stub) == before
        found = {name: stub.GetModel(pb.GetModelRequest(tag=name)).digest for name in expected}
        assert found == expected
        by_number = pb.GetModelRequest(version=before["monday"])
        assert stub.GetModel(by_number).digest == expected["monday"]
        stub.DeleteTag(pb.DeleteTagRequest(name="monday"))
        assert code_of(stub.GetModel, by_number)[0] is grpc.StatusCode.NOT_FOUND


def test_a_killed_server_has_its_tags(tmp_path: Path) -> None:
    with (
        LocalServer("--device", "cpu", "--state", str(tmp_path)) as server,
        Client(server.address) as client,
    ):
        client.step()
        client.tag_version("kept", request_id="kept")
        client.tag_version("gone")
        client.delete_tag("gone")
        run = client.train(100_000)
        next(run)
        during = client.tag_version("during-a-run")
        server.kill()
    with serve(tmp_path) as (client, stub):
        found = tags(stub)
        assert (found["kept"], found["during-a-run"]) == (1, during)
        assert "gone" not in found
        assert client.tag_version("kept", request_id="kept") == 1
        assert client.get_model(version="during-a-run").version == during
