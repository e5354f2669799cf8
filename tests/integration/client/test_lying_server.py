"""Tests of both clients against a server that lies: each lie is refused or shown, none passed on.

The lies are made from the contract: each field of each answer, with each extreme value of its type.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from mnist37_client import Client, InvalidResponse, Mnist37Error, Prediction, Run, Unavailable
from mnist37_client._rpc.transport.stub import make_stub
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from support.both_clients import IMAGES, AnyClient, MakeClient
from support.liar import METHODS, Answer, Liar

EPOCHS = 3
ESCAPES = "\x1b]0;forged\x07\nmnist37: \u202e"
NEW_WEIGHTS = np.linspace(-1, 1, 784)

CALLS: dict[str, Callable[[AnyClient], object]] = {
    "Predict": lambda client: client.predict(IMAGES[:2]),
    "PredictStream": lambda client: list(client.predict_stream([IMAGES[:2], IMAGES[0]])),
    "Step": lambda client: client.step(),
    "Train": lambda client: list(client.train(EPOCHS)),
    "GetLoss": lambda client: client.get_loss("valid"),
    "Initialize": lambda client: client.initialize(),
    "GetModel": lambda client: client.get_model(),
    "ListVersions": lambda client: client.versions(10),
    "Restore": lambda client: client.restore(0),
    "Import": lambda client: client.import_model(NEW_WEIGHTS, 0),
    "TagVersion": lambda client: client.tag_version("monday"),
    "ListFollowers": lambda client: client.followers(),
    "ListTags": lambda client: client.tags(),
    "DeleteTag": lambda client: client.delete_tag("monday"),
    "ListRuns": lambda client: client.runs(),
    "WatchRun": lambda client: list(client.watch_run()),
}

pixels = IMAGES[:2].tobytes()
REQUESTS: dict[str, Message | list[Message]] = {
    "Predict": pb.PredictRequest(pixels=pixels),
    "PredictStream": [pb.PredictRequest(pixels=pixels), pb.PredictRequest(pixels=bytes(784))],
    "Step": pb.StepRequest(),
    "Train": pb.TrainRequest(epochs=EPOCHS, coalesce=True),
    "GetLoss": pb.GetLossRequest(split=pb.SPLIT_VALID),
    "Initialize": pb.InitializeRequest(),
    "GetModel": pb.GetModelRequest(),
    "ListVersions": pb.ListVersionsRequest(limit=10),
    "Restore": pb.RestoreRequest(version=0),
    "Import": pb.ImportRequest(weights=NEW_WEIGHTS.astype("<f4").tobytes(), bias=0),
    "TagVersion": pb.TagVersionRequest(name="monday"),
    "ListFollowers": pb.ListFollowersRequest(),
    "ListTags": pb.ListTagsRequest(),
    "DeleteTag": pb.DeleteTagRequest(name="monday"),
    "ListRuns": pb.ListRunsRequest(page_size=100),
    "WatchRun": pb.WatchRunRequest(coalesce=True),
}

Truth = dict[str, list[Any]]


def answer_type(rpc: str) -> type[Message]:
    """Return the type of a method's answers."""
    kind: type[Message] = getattr(pb, METHODS[rpc].output_type.name)
    return kind


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Return what a real server answers to each method."""
    with LocalServer("--device", "cpu") as server, grpc.insecure_channel(server.address) as channel:
        with Client(server.address) as client:
            client.train(EPOCHS).wait()
        stub = make_stub(channel)
        follow = stub.Follow(pb.FollowRequest(id="follower-1", address="127.0.0.1:50052"))
        next(follow)
        answers: Truth = {}
        for rpc, request in REQUESTS.items():
            answer = getattr(stub, rpc)(iter(request) if isinstance(request, list) else request)
            contents = [answer] if isinstance(answer, bytes) else list(answer)
            answers[rpc] = [answer_type(rpc).FromString(content) for content in contents]
        follow.cancel()
    return answers


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    with Liar() as liar:
        yield liar


EXTREMES: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_ENUM: [0, 1, 99, -1, 2**31 - 1],
    FieldDescriptor.TYPE_DOUBLE: [math.nan, math.inf, -math.inf, -1.0, -0.0, 1.0000001, 3e38],
    FieldDescriptor.TYPE_FLOAT: [math.nan, math.inf, -math.inf, -1.0, -0.0, 1.00001, 3e38],
    FieldDescriptor.TYPE_UINT32: [0, 1, 2**32 - 1],
    FieldDescriptor.TYPE_UINT64: [0, 1, 2**64 - 1],
    FieldDescriptor.TYPE_FIXED64: [0, 1, 2**64 - 1],
    FieldDescriptor.TYPE_INT32: [0, -1, -(2**31), 2**31 - 1],
    FieldDescriptor.TYPE_INT64: [0, -1, -(2**63), 2**63 - 1],
    FieldDescriptor.TYPE_BOOL: [False, True],
    FieldDescriptor.TYPE_STRING: ["", ESCAPES, "x" * 100_000],
}


def extremes(field: FieldDescriptor, value: Any) -> list[Any]:
    """Return the extreme values of a field that is no message."""
    if field.type == field.TYPE_BYTES:
        return [b"", value[:-1], value[:-4], 2 * value]
    return EXTREMES[field.type]


def lies(message: Any) -> Iterator[tuple[str, Any]]:
    """Yield the message with one field at a time, at any depth, of each extreme value."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)

        def changed(name: str = field.name) -> tuple[Any, Any]:
            copy = type(message)()
            copy.CopyFrom(message)
            return copy, getattr(copy, name)

        if field.is_repeated:
            yield from repeated_lies(field, value, changed)
        elif field.message_type is not None:
            copy, _ = changed()
            copy.ClearField(field.name)
            yield f"{field.full_name} missing", copy
            for what, lie in lies(value):
                copy, target = changed()
                target.CopyFrom(lie)
                yield what, copy
        else:
            for extreme in extremes(field, value):
                copy, _ = changed()
                setattr(copy, field.name, extreme)
                yield f"{field.full_name}={extreme!r:.30}", copy


def repeated_lies(
    field: FieldDescriptor, value: Any, changed: Callable[[], tuple[Any, Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield the message with fewer and with more elements, and with an extreme one."""
    copy, elements = changed()
    del elements[:]
    yield f"{field.full_name} empty", copy
    copy, elements = changed()
    elements.extend(list(elements))
    yield f"{field.full_name} doubled", copy
    if field.message_type is None:
        for extreme in extremes(field, None):
            copy, elements = changed()
            elements[:] = [extreme, *value[1:]]
            yield f"{field.full_name}[0]={extreme!r:.30}", copy
        return
    for index, element in enumerate(value[:1]):
        for what, lie in lies(element):
            copy, elements = changed()
            elements[index].CopyFrom(lie)
            yield what, copy


def check_sane(result: Any) -> None:
    """Assert that a result is what a caller may rely on."""
    if isinstance(result, Prediction):
        assert ((result.probabilities >= 0) & (result.probabilities <= 1)).all()
    if isinstance(result, list):
        for item in result:
            check_sane(item)
    elif isinstance(result, np.ndarray | np.generic):
        assert np.isfinite(result).all()
    elif isinstance(result, float):
        assert math.isfinite(result)
    elif is_dataclass(result):
        for field in fields(result):
            value = getattr(result, field.name)
            check_sane(value)
            # These are texts of callers, which may hold anything.
            free = {"request_id", "name"} if isinstance(result, Run) else set()
            if isinstance(value, str) and field.name not in free:
                assert value.isprintable()
    else:
        assert isinstance(result, int | str | datetime | None)


def test_each_method_of_the_contract_is_called() -> None:
    # Follow is for servers: no method of a client calls it.
    assert set(CALLS) == set(REQUESTS) == set(METHODS) - {"Follow"}


@pytest.mark.parametrize("rpc", CALLS)
def test_each_lie_is_refused_or_shown(
    make: MakeClient, liar: Liar, truth: Truth, rpc: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client = make(liar.address, timeout=5, retry_for=0)
    liar.say(rpc, *(message.SerializeToString() for message in truth[rpc]))
    check_sane(CALLS[rpc](client))
    refused = []
    for index, message in enumerate(truth[rpc]):
        for what, lie in lies(message):
            said = [*truth[rpc][:index], lie, *truth[rpc][index + 1 :]]
            liar.say(rpc, *(message.SerializeToString() for message in said))
            try:
                check_sane(CALLS[rpc](client))
            except InvalidResponse as error:
                refused.append(str(error))
            except BaseException as error:
                raise AssertionError(what) from error
    assert refused or rpc in {"TagVersion", "DeleteTag"}  # an answer with any version is possible
    assert all(text.isprintable() for text in refused)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rpc", CALLS)
def test_an_answer_that_cannot_be_decoded_is_refused(
    make: MakeClient, liar: Liar, truth: Truth, rpc: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client = make(liar.address, timeout=5, retry_for=0)
    content = truth[rpc][0].SerializeToString()
    for wrong in (b"\xff" * 100, content[:-1], content + b"\x0a\xff"):
        liar.say(rpc, wrong)
        with pytest.raises(InvalidResponse, match=r"the server's answer is no mnist37\.v1\.\w+:"):
            CALLS[rpc](client)
    assert capfd.readouterr() == ("", "")


def enums(message: Any) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Yield each field of an enum at any depth, and the message that has it."""
    for field, value in message.ListFields():
        if field.enum_type is not None:
            yield field, message
        elif field.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                yield from enums(each)


@pytest.mark.parametrize("rpc", CALLS)
def test_the_enum_values_of_a_later_server_are_shown(
    make: MakeClient, liar: Liar, truth: Truth, rpc: str
) -> None:
    client = make(liar.address, timeout=5, retry_for=0)
    messages = [answer_type(rpc).FromString(each.SerializeToString()) for each in truth[rpc]]
    found = [pair for message in messages for pair in enums(message)]
    for field, holder in found:
        setattr(holder, field.name, 99)
    liar.say(rpc, *(message.SerializeToString() for message in messages))
    assert repr(CALLS[rpc](client)).count("unknown (99)") == len(found)
    assert bool(found) == (rpc in {"ListVersions", "ListRuns", "WatchRun"})


def epoch(number: int, epochs: int = EPOCHS, **values: Any) -> bytes:
    return pb.TrainResponse(epoch=number, epochs=epochs, **values).SerializeToString()


def prediction(*probabilities: float, version: int = 5) -> bytes:
    message = pb.PredictResponse(probabilities=probabilities, version=version)
    return message.SerializeToString()


NO_RUN = pb.WatchRunResponse(run=pb.Run(run=8)).SerializeToString()

REFUSED: dict[str, tuple[str, list[bytes], str]] = {
    "too few": ("Predict", [prediction(0.5)], "probabilities: got 1; must be one for each of 2"),
    "too many": ("Predict", [prediction(0.5, 0.5, 0.5)], "probabilities: got 3;"),
    "none": ("Predict", [b""], "probabilities: got 0;"),
    "NaN": ("Predict", [prediction(0.5, math.nan)], r"got nan; must be in 0\.\.1"),
    "a batch too few": ("PredictStream", [prediction(0.5, 0.5)], "before it had answered each"),
    "a batch too many": (
        "PredictStream",
        [prediction(0.5, 0.5), prediction(0.5), prediction(0.5)],
        "more answers than it got batches",
    ),
    "no epoch": ("Train", [], "ended the run's stream after epoch 0 of 3"),
    "ended early": ("Train", [epoch(1), epoch(2)], "ended the run's stream after epoch 2 of 3"),
    "an epoch too many": ("Train", [epoch(3), epoch(4)], r"epoch: got 4; must be in 1\.\.3"),
    "backwards": ("Train", [epoch(2), epoch(1)], "epoch: got 1 after 2"),
    "twice": ("Train", [epoch(2), epoch(2)], "epoch: got 2 after 2"),
    "another run": ("Train", [epoch(1, epochs=7)], "epochs: got 7; must be 3"),
    "elapsed": ("Train", [epoch(3, elapsed=Duration(seconds=2**62))], "elapsed: got 46116860"),
    "a version too many": (
        "ListVersions",
        [
            pb.ListVersionsResponse(
                versions=[pb.ModelVersion(version=99 - each) for each in range(11)]
            ).SerializeToString()
        ],
        "versions: got 11; must be at most 10",
    ),
    "the year 300,000": (
        "ListVersions",
        [
            pb.ListVersionsResponse(
                versions=[pb.ModelVersion(committed_at=Timestamp(seconds=2**43))]
            ).SerializeToString()
        ],
        "committed_at: got 8796093022208 s and 0 ns; must be a time",
    ),
    "a foreign digest": (
        "GetModel",
        [pb.GetModelResponse(weights=bytes(3136), digest="0" * 64).SerializeToString()],
        "digest: got '00",
    ),
    "nothing to watch": ("WatchRun", [b""], "what: got nothing"),
    "two runs": (
        "WatchRun",
        [pb.WatchRunResponse(run=pb.Run(run=7)).SerializeToString(), NO_RUN],
        "run: got 8; must be 7",
    ),
}


@pytest.mark.parametrize(("rpc", "said", "text"), REFUSED.values(), ids=REFUSED)
def test_a_lie_is_named(
    make: MakeClient, liar: Liar, rpc: str, said: list[bytes], text: str
) -> None:
    liar.say(rpc, *said)
    with pytest.raises(InvalidResponse, match=text):
        CALLS[rpc](make(liar.address, timeout=5, retry_for=0))


def test_a_run_without_end_is_left(make: MakeClient, liar: Liar) -> None:
    left = []

    def endless(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(lambda: left.append(True))
        number = 0
        while context.is_active():
            number += 1
            yield epoch(number)

    liar.answers["Train"] = endless
    run = make(liar.address).train(EPOCHS)
    assert [next(run).epoch for _ in range(3)] == [1, 2, 3]
    with pytest.raises(InvalidResponse, match="epoch: got 4"):
        next(run)
    for _ in range(100):
        if left:
            break
        time.sleep(0.02)
    assert left


OLD_VERSIONS: list[Callable[[AnyClient], object]] = [
    lambda client: client.predict(IMAGES[0], version=4),
    lambda client: client.get_model(version=4),
    lambda client: client.get_loss("valid", version=4),
]


@pytest.mark.parametrize("call", OLD_VERSIONS)
def test_another_version_than_the_one_asked_for_is_refused(
    make: MakeClient, liar: Liar, truth: Truth, call: Callable[[AnyClient], object]
) -> None:
    liar.say("Predict", prediction(0.5))
    for rpc in ("GetModel", "GetLoss"):
        liar.say(rpc, *(message.SerializeToString() for message in truth[rpc]))
    with pytest.raises(InvalidResponse, match=r"version: got \d+; must be 4, as the request says"):
        call(make(liar.address, timeout=5))


def test_one_version_answers_a_prediction_in_parts(make: MakeClient, liar: Liar) -> None:
    def each_of_another(request: bytes, _context: grpc.ServicerContext) -> list[bytes]:
        count = len(pb.PredictRequest.FromString(request).pixels) // 784
        return [prediction(*[0.5] * count, version=count)]

    liar.answers["Predict"] = each_of_another
    with pytest.raises(InvalidResponse, match=r"version: got 3616; must be 16384"):
        make(liar.address, timeout=5).predict(np.zeros((20_000, 784), np.uint8))


def refuse(code: grpc.StatusCode, text: str, *details: Message) -> Answer:
    """Return the answer of a server that fails each call so."""

    def answer(_request: Any, context: grpc.ServicerContext) -> list[bytes]:
        status = Status(code=code.value[0], message=text)
        for detail in details:
            status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, text)

    return answer


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_the_text_of_an_error_is_one_printable_line(
    make: MakeClient, liar: Liar, code: grpc.StatusCode
) -> None:
    client = make(liar.address, timeout=5, retry_for=0)
    for seconds in (-5, 3 * 10**8, 2**62):
        details = (
            ErrorInfo(reason=ESCAPES, domain=ESCAPES),
            RetryInfo(retry_delay=Duration(seconds=seconds)),
        )
        liar.answers["GetModel"] = refuse(code, ESCAPES + 3000 * "x", *details)
        with pytest.raises(Mnist37Error) as caught:
            client.get_model()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2500
        assert caught.value.reason is None or caught.value.reason.isprintable()
        assert caught.value.retry_after is None or caught.value.retry_after >= 0


def test_a_server_that_asks_for_ten_years_is_not_waited_for(make: MakeClient, liar: Liar) -> None:
    client = make(liar.address, timeout=5, retry_for=20)
    liar.say("Initialize", pb.InitializeResponse(version=1).SerializeToString())
    client.initialize()
    delay = RetryInfo(retry_delay=Duration(seconds=3 * 10**8))
    liar.answers["GetModel"] = refuse(grpc.StatusCode.UNAVAILABLE, "later", delay)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="later"):
        client.get_model()
    assert time.monotonic() - began < 5


COMMANDS: dict[str, tuple[list[str], Answer, int]] = {
    "model": (["model"], lambda *_: [pb.GetModelResponse(device=ESCAPES).SerializeToString()], 1),
    "error": (["model"], refuse(grpc.StatusCode.NOT_FOUND, ESCAPES), 4),
    "train": (["train", "3"], lambda *_: [], 1),
    "garbage": (["train", "3", "--json"], lambda *_: [b"\xff"], 1),
    "versions": (
        ["versions"],
        lambda *_: [
            pb.ListVersionsResponse(versions=[pb.ModelVersion(origin=77)]).SerializeToString()  # type: ignore[arg-type]
        ],
        0,
    ),
    "runs": (
        ["runs"],
        lambda *_: [
            pb.ListRunsResponse(runs=[pb.Run(run=1, request_id=ESCAPES)]).SerializeToString()
        ],
        0,
    ),
}
RPC_OF = {"model": "GetModel", "train": "Train", "versions": "ListVersions", "runs": "ListRuns"}


@pytest.mark.parametrize(("arguments", "answer", "status"), COMMANDS.values(), ids=COMMANDS)
def test_nothing_raw_reaches_the_terminal(
    liar: Liar, arguments: list[str], answer: Answer, status: int
) -> None:
    liar.answers[RPC_OF[arguments[0]]] = answer
    command = [sys.executable, "-W", "error", "-m", "mnist37_client.cli", *arguments]
    ended = subprocess.run(
        [*command, "--address", liar.address, "--retry-for", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == status
    assert ended.stderr.count("\n") == bool(status)
    assert (ended.stdout + ended.stderr).replace("\n", "").isprintable()
