"""Tests of Follow, of floors and of starts at an owner, over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as inference
from mnist37_protos.inference import open_inference_pb2_grpc as inference_grpc
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

TIMEOUT = 20


@pytest.fixture
def stub(server: LocalServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield mnist37_pb2_grpc.Mnist37ServiceStub(channel)


def content(model: pb.GetModelResponse) -> bytes:
    return bytes(model.weights + np.float32(model.bias).tobytes())


def test_a_reader_gets_the_model_then_each_version(stub: Any) -> None:
    follow = stub.Follow(pb.FollowRequest(), timeout=TIMEOUT)
    first = next(follow)
    model = stub.GetModel(pb.GetModelRequest())
    assert first.position == pb.Position(start=model.start, version=0)
    assert first.parameters == content(model)
    assert first.origin == pb.ORIGIN_INITIALIZE
    assert list(first.starts) == [first.position]
    step = stub.Step(pb.StepRequest())
    second = next(follow)
    assert (second.position.start, second.position.version) == (step.start, step.version)
    assert second.parameters == content(stub.GetModel(pb.GetModelRequest()))
    assert second.origin == pb.ORIGIN_STEP
    assert not second.starts
    run = list(stub.Train(pb.TrainRequest(epochs=1)))[-1]
    third = next(follow)
    while third.position.version < run.version:
        third = next(follow)
    assert (third.origin, third.run) == (pb.ORIGIN_TRAIN, run.run)
    again = next(follow)
    assert again.position == third.position, "a sign of life"
    assert not again.parameters


def test_what_is_held_is_not_sent(stub: Any) -> None:
    model = stub.GetModel(pb.GetModelRequest())
    held = pb.Position(start=model.start, version=model.version)
    first = next(stub.Follow(pb.FollowRequest(position=held), timeout=TIMEOUT))
    assert first.position == held
    assert not first.parameters
    assert first.starts
    elsewhere = pb.Position(start=model.start ^ 1, version=model.version)
    first = next(stub.Follow(pb.FollowRequest(position=elsewhere), timeout=TIMEOUT))
    assert first.parameters == content(model), "it is of another history"
    stub.Step(pb.StepRequest())
    first = next(stub.Follow(pb.FollowRequest(position=held), timeout=TIMEOUT))
    assert len(first.parameters) == 785 * 4


def test_the_starts_are_those_of_the_state(tmp_path: Path) -> None:
    starts: list[pb.Position] = []
    for _ in range(3):
        with (
            LocalServer("--device", "cpu", "--state", str(tmp_path)) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            stub: Any = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
            starts.insert(0, next(stub.Follow(pb.FollowRequest(), timeout=TIMEOUT)).position)
            earlier = starts[-1]
            # A position of the first start is in the history of each later one.
            floor = pb.GetModelRequest(start=earlier.start, min_version=earlier.version)
            assert stub.GetModel(floor, timeout=TIMEOUT).start == starts[0].start
            found = next(stub.Follow(pb.FollowRequest(), timeout=TIMEOUT)).starts
            assert list(found) == starts
            stub.Step(pb.StepRequest())
    assert [start.version for start in starts] == [2, 1, 0]
    assert len({start.start for start in starts}) == 3


def test_the_list_of_followers(stub: Any) -> None:
    named = pb.FollowRequest(id="one", address="127.0.0.1:1")
    follow = stub.Follow(named, timeout=TIMEOUT)
    position = next(follow).position
    unnamed = stub.Follow(pb.FollowRequest(), timeout=TIMEOUT)
    next(unnamed)
    stub.Step(pb.StepRequest())
    next(follow)
    next(follow)  # the owner knows now that the one before was sent
    first, second = stub.ListFollowers(pb.ListFollowersRequest(), timeout=TIMEOUT).followers
    assert (first.id, first.address, second.id) == ("one", "127.0.0.1:1", "")
    assert (first.position.start, first.position.version) == (position.start, 1)
    assert not first.age.ToNanoseconds()
    assert first.connected_at.ToSeconds() > 1.6e9
    again = stub.Follow(named, timeout=TIMEOUT)
    next(again)
    assert not list(follow)[1:], "the same follower has come again"
    assert follow.code() is grpc.StatusCode.OK
    again.cancel()
    unnamed.cancel()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.FollowRequest(id="x" * 129), "id"),
        (pb.FollowRequest(id="a\nb"), "id"),
        (pb.FollowRequest(address="x" * 257), "address"),
        (pb.FollowRequest(address="\x1b[31m"), "address"),
        (pb.FollowRequest(min_interval=Duration(seconds=1, nanos=1)), "min_interval"),
        (pb.FollowRequest(min_interval=Duration(nanos=-1)), "min_interval"),
        (pb.FollowRequest(min_interval=Duration(seconds=-(2**62))), "min_interval"),
    ],
)
def test_a_wrong_value_is_refused(address: str, request_: pb.FollowRequest, field: str) -> None:
    with grpc.insecure_channel(address) as channel:
        follow = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Follow(request_, timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError) as caught:
            next(follow)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: ")


def test_every_answer_names_the_start(stub: Any) -> None:
    start = stub.GetModel(pb.GetModelRequest()).start
    assert start
    weights = bytes(784 * 4)
    predict = pb.PredictRequest(pixels=bytes(784))
    answers = [
        stub.Predict(predict),
        *stub.PredictStream(iter([predict])),
        stub.GetLoss(pb.GetLossRequest(split=pb.SPLIT_VALID)),
        stub.Step(pb.StepRequest(request_id="a")),
        stub.Step(pb.StepRequest(request_id="a")),
        *stub.Train(pb.TrainRequest(epochs=2)),
        *stub.Train(pb.TrainRequest(epochs=2, coalesce=True)),
        stub.Initialize(pb.InitializeRequest()),
        stub.Restore(pb.RestoreRequest(version=0)),
        stub.Import(pb.ImportRequest(weights=weights, bias=0)),
        stub.TagVersion(pb.TagVersionRequest(name="kept")),
        stub.DeleteTag(pb.DeleteTagRequest(name="kept")),
        stub.GetModel(pb.GetModelRequest(version=0)),
    ]
    assert {answer.start for answer in answers} == {start}


def test_a_floor_holds_for_every_message_of_a_stream(stub: Any) -> None:
    start = stub.GetModel(pb.GetModelRequest()).start
    requests = [
        pb.PredictRequest(pixels=bytes(784), start=start, min_version=0),
        pb.PredictRequest(pixels=bytes(784), start=start, min_version=1),
    ]
    answers = stub.PredictStream(iter(requests), timeout=TIMEOUT)
    assert next(answers).version == 0
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_the_open_inference_protocol_takes_a_floor_and_names_the_start(
    server: LocalServer, stub: Any
) -> None:
    pixels = inference.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=[1, 784]
    )

    def ask(**parameters: inference.InferParameter) -> Any:
        return infer(
            inference.ModelInferRequest(
                model_name="mnist37",
                inputs=[pixels],
                raw_input_contents=[bytes(784)],
                parameters=parameters,
            ),
            timeout=TIMEOUT,
        )

    number = inference.InferParameter
    start = stub.GetModel(pb.GetModelRequest()).start
    with grpc.insecure_channel(server.address) as channel:
        infer = inference_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        assert "start" not in ask().parameters
        assert ask(start=number(int64_param=0)).parameters["start"].int64_param == start
        known = ask(start=number(string_param=str(start)), min_version=number(int64_param=0))
        assert known.parameters["start"].int64_param == start
        for parameters, code in (
            ({"min_version": number(int64_param=1)}, grpc.StatusCode.UNAVAILABLE),
            ({"start": number(int64_param=start ^ 1)}, grpc.StatusCode.FAILED_PRECONDITION),
            ({"start": number(int64_param=-1)}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"start": number(string_param="9" * 21)}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"min_version": number(bool_param=True)}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"min_version": number()}, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(**parameters)
            error: Any = caught.value
            assert error.code() is code, parameters
