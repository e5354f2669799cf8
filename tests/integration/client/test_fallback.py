"""Tests of reads over followers that refuse or lie: the owner has the last word.

Owner and followers are servers on real ports that answer what a test says.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from mnist37_client import (
    FailedPrecondition,
    HistoryLost,
    InvalidInput,
    NotFound,
    NotOwner,
    Position,
    Unavailable,
)
from mnist37_client._rpc.replicas import ATTEMPT_SECONDS
from mnist37_protos.v1 import mnist37_pb2 as pb
from support.both_clients import IMAGES, AnyClient, MakeClient
from support.liar import Answer, Liar

OWNER, FOLLOWER, LOST_OWNER = 11, 11, 22  # starts


@pytest.fixture
def owner() -> Iterator[Liar]:
    with Liar() as liar:
        yield liar


@pytest.fixture
def follower() -> Iterator[Liar]:
    with Liar() as liar:
        yield liar


@pytest.fixture
def client(make: MakeClient, owner: Liar, follower: Liar) -> AnyClient:
    return make(owner.address, replicas=[follower.address], retry_for=0, timeout=10)


class Asked(list[Any]):
    """The requests that a server got; `answer` is its answer, a prediction at a position."""

    def __init__(self, start: int, version: int) -> None:
        self.position = start, version

    def answer(self, content: Any, _context: grpc.ServicerContext) -> list[bytes]:
        requests = parse(content)
        self += requests
        return [predicted(each, *self.position) for each in requests]

    @property
    def floors(self) -> list[tuple[int, int]]:
        """Return the floors of the requests."""
        return [(each.start, each.min_version) for each in self]


def parse(content: bytes | list[bytes]) -> list[pb.PredictRequest]:
    """Return the requests of a Predict or of a PredictStream."""
    contents = content if isinstance(content, list) else [content]
    return [pb.PredictRequest.FromString(each) for each in contents]


def predicted(request: pb.PredictRequest, start: int, version: int) -> bytes:
    version = request.version if request.HasField("version") else version
    probabilities = [0.5] * (len(request.pixels) // 784)
    answer = pb.PredictResponse(probabilities=probabilities, version=version, start=start)
    return answer.SerializeToString()


def refuse(code: grpc.StatusCode, reason: str, **metadata: str) -> Answer:
    def answer(_request: Any, context: grpc.ServicerContext) -> list[bytes]:
        status = Status(code=code.value[0], message=f"says {reason}")
        status.details.add().Pack(ErrorInfo(reason=reason, domain="mnist37", metadata=metadata))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, f"says {reason}")

    return answer


def lost(**metadata: str) -> Answer:
    return refuse(grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_LOST", **metadata)


def never_answer(_request: Any, _context: grpc.ServicerContext) -> list[bytes]:
    time.sleep(4 * ATTEMPT_SECONDS)
    return [b""]


REFUSALS = {
    "behind": refuse(grpc.StatusCode.UNAVAILABLE, "BEHIND"),
    "stale": refuse(grpc.StatusCode.UNAVAILABLE, "STALE"),
    "of another history": lost(),
    "not the owner": refuse(grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER"),
    "without the token": refuse(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"),
    "silent": never_answer,
}
FINAL: dict[str, tuple[grpc.StatusCode, type[Exception]]] = {
    "INVALID_FIELD": (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
    "VERSION_NOT_RETAINED": (grpc.StatusCode.NOT_FOUND, NotFound),
}


def test_followers_read_and_the_owner_writes(
    client: AnyClient, owner: Liar, follower: Liar
) -> None:
    reads, position = Asked(FOLLOWER, 7), {"start": OWNER, "version": 8}
    follower.answers["Predict"] = reads.answer
    owner.say("Step", pb.StepResponse(loss=0.5, **position).SerializeToString())
    assert client.predict(IMAGES[0]).version == 7
    assert client.step().version == 8
    client.predict(IMAGES[0])
    client.predict(IMAGES[:2])
    assert reads.floors == [(0, 0), (OWNER, 8), (OWNER, 8)]


def test_fresh_asks_the_owner(client: AnyClient, owner: Liar, follower: Liar) -> None:
    reads = Asked(OWNER, 9)
    owner.answers["Predict"] = reads.answer
    follower.answers["Predict"] = Asked(FOLLOWER, 7).answer
    assert [client.predict(IMAGES[:5], fresh=fresh).version for fresh in (False, True)] == [7, 9]
    assert len(reads) == 1


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_the_owner_answers_what_followers_refuse(
    client: AnyClient, owner: Liar, follower: Liar, refusal: Answer
) -> None:
    owner.answers["Predict"] = Asked(OWNER, 9).answer
    follower.answers["Predict"] = refusal
    assert client.predict(IMAGES[0]).version == 9


def test_a_follower_that_does_not_listen_is_not_noticed(make: MakeClient, owner: Liar) -> None:
    with Liar() as gone:
        pass
    owner.answers["Predict"] = owner.answers["PredictStream"] = Asked(OWNER, 9).answer
    client = make(owner.address, replicas=gone.address, retry_for=0)
    assert client.predict(IMAGES[0]).version == 9
    assert [each.version for each in client.predict_stream(IMAGES[:3])] == [9, 9, 9]


def test_a_retry_begins_at_the_followers(make: MakeClient, owner: Liar, follower: Liar) -> None:
    client = make(owner.address, replicas=[follower.address], retry_for=10)
    reads = Asked(FOLLOWER, 7)
    follower.answers["Predict"] = reads.answer
    client.predict(IMAGES[0])
    owner.answers["Predict"] = refuse(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    refusals = iter(2 * [refuse(grpc.StatusCode.UNAVAILABLE, "BEHIND")])  # for both attempts

    def refuse_first(content: Any, context: grpc.ServicerContext) -> list[bytes]:
        return list(next(refusals, reads.answer)(content, context))

    follower.answers["Predict"] = refuse_first
    assert client.predict(IMAGES[0]).version == 7
    assert len(reads) == 2


@pytest.mark.parametrize("reason", FINAL)
def test_a_followers_word_about_the_request_is_final(
    client: AnyClient, follower: Liar, reason: str
) -> None:
    code, expected = FINAL[reason]
    follower.answers["Predict"] = refuse(code, reason)
    with pytest.raises(expected, match=f"says {reason}"):
        client.predict(IMAGES[0])


def test_the_owners_error_is_final(client: AnyClient, owner: Liar, follower: Liar) -> None:
    owner.answers["Predict"] = refuse(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    follower.answers["Predict"] = refuse(grpc.StatusCode.UNAVAILABLE, "BEHIND")
    with pytest.raises(Unavailable, match=f"{owner.address}: says SHUTTING_DOWN"):
        client.predict(IMAGES[0])


def test_a_message_to_followers_has_few_images(
    client: AnyClient, owner: Liar, follower: Liar
) -> None:
    reads, rest = Asked(FOLLOWER, 7), Asked(OWNER, 9)
    images = IMAGES[:1500]

    def answer_once(request: Any, context: grpc.ServicerContext) -> list[bytes]:
        if reads:  # it has missed version 7 since
            return list(refuse(grpc.StatusCode.NOT_FOUND, "VERSION_NOT_RETAINED")(request, context))
        return reads.answer(request, context)

    follower.answers["Predict"] = answer_once
    owner.answers["Predict"] = rest.answer
    prediction = client.predict(images)
    assert (len(prediction.probabilities), prediction.version) == (1500, 7)
    assert [len(each.pixels) // 784 for each in (*reads, *rest)] == [1024, 476]
    client.predict(images, fresh=True)
    assert len(rest[-1].pixels) // 784 == 1500


def test_a_client_without_an_owner_reads(make: MakeClient, follower: Liar) -> None:
    client = make(None, replicas=[follower.address], retry_for=0)
    follower.answers["Predict"] = Asked(FOLLOWER, 7).answer
    assert client.predict(IMAGES[0]).version == 7
    for call in (client.step, client.tags, client.followers, client.initialize):
        with pytest.raises(NotOwner, match="only the owner of the model answers it; give its"):
            call()
    with pytest.raises(NotOwner):
        client.predict(IMAGES[0], fresh=True)
    follower.answers["Predict"] = refuse(grpc.StatusCode.UNAVAILABLE, "STALE")
    with pytest.raises(Unavailable, match=rf"{follower.address}: says STALE") as caught:
        client.predict(IMAGES[0])
    assert caught.value.reason == "STALE"
    follower.answers["Predict"] = lost(start="22", version="3", floor_start="11", floor_version="7")
    with pytest.raises(HistoryLost) as lost_history:
        client.predict(IMAGES[0])
    assert lost_history.value.position == Position(22, 3)
    assert lost_history.value.floor == Position(11, 7)


@pytest.mark.parametrize("metadata", [{}, {"start": "x", "version": "3"}, {"start": "9" * 99}])
def test_a_lost_history_without_positions_is_one_too(
    client: AnyClient, owner: Liar, follower: Liar, metadata: dict[str, str]
) -> None:
    owner.answers["Predict"] = follower.answers["Predict"] = lost(**metadata)
    with pytest.raises(HistoryLost) as caught:
        client.predict(IMAGES[0])
    assert caught.value.position is None
    assert caught.value.floor is None


def test_an_unknown_precondition_is_one_of_its_class(
    client: AnyClient, owner: Liar, follower: Liar
) -> None:
    refusal = refuse(grpc.StatusCode.FAILED_PRECONDITION, "LATER")
    owner.answers["Predict"] = follower.answers["Predict"] = refusal
    with pytest.raises(FailedPrecondition) as caught:
        client.predict(IMAGES[0])
    assert type(caught.value) is FailedPrecondition


CALLS: dict[str, tuple[Callable[[AnyClient], object], Message]] = {
    "Predict": (
        lambda client: client.predict(IMAGES[0]),
        pb.PredictResponse(probabilities=[0.5], start=LOST_OWNER),
    ),
    "PredictStream": (
        lambda client: list(client.predict_stream([IMAGES[0]])),
        pb.PredictResponse(probabilities=[0.5], start=LOST_OWNER),
    ),
    "GetLoss": (
        lambda client: client.get_loss("valid"),
        pb.GetLossResponse(count=1, threes_right=1, start=LOST_OWNER),
    ),
}


@pytest.mark.parametrize("rpc", CALLS)
def test_a_lost_history_is_raised_once(make: MakeClient, owner: Liar, rpc: str) -> None:
    # Calls at the same time: all are sent with the old floor, and one of them raises.
    callers = 2  # more would be merged
    client = make(owner.address)
    call, answer = CALLS[rpc]
    owner.say("Step", pb.StepResponse(start=11, version=9, loss=0.5).SerializeToString())
    assert client.step().version == 9
    barrier = threading.Barrier(callers)

    def judge(request: Any, context: grpc.ServicerContext) -> list[bytes]:
        first = request[0] if isinstance(request, list) else request
        kind = pb.GetLossRequest if rpc == "GetLoss" else pb.PredictRequest
        start = kind.FromString(first).start
        if start == 11:
            barrier.wait(10)
            return list(lost(start="22", version="0")(request, context))
        assert start in (0, LOST_OWNER)
        return [answer.SerializeToString()]

    owner.answers[rpc] = judge
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            call(client)
        except HistoryLost as error:
            errors.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    call(client)


def test_another_stream_continues_one_that_failed(
    client: AnyClient, owner: Liar, follower: Liar
) -> None:
    rest = Asked(OWNER, 9)
    owner.answers["PredictStream"] = rest.answer

    def answer_two(requests: list[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in parse(requests)[:2]:
            yield predicted(request, FOLLOWER, 7)
        context.abort(grpc.StatusCode.UNAVAILABLE, "killed")

    follower.answers["PredictStream"] = answer_two
    batches = [IMAGES[: count + 1] for count in range(5)]
    predictions = list(client.predict_stream(batches))
    assert [len(each.probabilities) for each in predictions] == [1, 2, 3, 4, 5]
    assert [each.version for each in predictions] == [7, 7, 9, 9, 9]
    assert [(each.start, each.min_version) for each in rest] == 3 * [(FOLLOWER, 7)]


@pytest.mark.parametrize(
    ("replicas", "text"),
    [
        ([], "got none; must be a list of IP:PORT, dns:///NAME:PORT"),
        ("localhost:50051", "got 'localhost:50051'; dns:///localhost:50051 looks a name up; must"),
        (["127.0.0.1:1", "[::1]:1"], "got IPv4 and IPv6 addresses in one list"),
        (["127.0.0.1"], "address: got '127.0.0.1'; must be HOST:PORT"),
        (["unix:/tmp/socket"], "got 'unix:/tmp/socket'; must be a list"),
        ("dns:///unix:/tmp/socket", "must be"),
        (7, "got 7; must be a list"),
        ([7], "address: got 7"),
    ],
)
def test_replicas_that_are_none(make: MakeClient, replicas: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"^replicas: .*{re.escape(text)}"):
        make("127.0.0.1:1", replicas=replicas)


def test_a_client_needs_a_server_and_a_token_needs_tls(make: MakeClient) -> None:
    with pytest.raises(InvalidInput, match="address: got None; must be HOST:PORT, unless"):
        make(None)
    with pytest.raises(InvalidInput, match=r"token: would go to 192.0.2.1:5 in plain text"):
        make("127.0.0.1:1", replicas=["192.0.2.1:5"], token="secret")
    with pytest.raises(InvalidInput, match="tls_server_name: missing"):
        make("127.0.0.1:1", replicas=["192.0.2.1:5", "192.0.2.2:5"], tls_ca="public")
