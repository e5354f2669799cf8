"""Tests of what a follower makes of the errors of the server that it follows."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from mnist37_server.domain.route import AT_THE_OWNER, Route
from mnist37_server.errors import NotFound, Reason, Unavailable
from mnist37_server.follower.upstream import refusal_of, route_of_refusal

ADDRESS = "owner:1"


class Failure(grpc.RpcError):
    """A failed call, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: bytes) -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "it says so"

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._details),)


def status(code: grpc.StatusCode, reason: Reason, **metadata: str) -> bytes:
    status = Status(code=code.value[0], message="it says so")
    status.details.add().Pack(ErrorInfo(reason=reason.name, metadata=metadata))
    return status.SerializeToString()


UNKNOWN_TAG = status(grpc.StatusCode.NOT_FOUND, Reason.TAG_UNKNOWN, tag="best@9")
WITHOUT_VERSION = status(
    grpc.StatusCode.UNAVAILABLE, Reason.OWNER_UNREACHABLE, owner="o:1", followers="a b"
)


def test_the_owners_word_on_a_version_is_passed_on() -> None:
    refusal = refusal_of(Failure(grpc.StatusCode.NOT_FOUND, UNKNOWN_TAG), ADDRESS)
    assert isinstance(refusal, NotFound)
    assert (refusal.reason, refusal.metadata) == (Reason.TAG_UNKNOWN, {"tag": "best@9"})


def test_the_way_to_a_follower_without_a_version_is_read() -> None:
    error = Failure(grpc.StatusCode.UNAVAILABLE, WITHOUT_VERSION)
    assert route_of_refusal(error) == Route("o:1", ("a", "b"))


@pytest.mark.parametrize(
    "details",
    [
        pytest.param(b"\xff", id="damaged"),
        pytest.param(UNKNOWN_TAG, id="of another error"),
    ],
)
def test_details_that_do_not_fit_the_error_are_left_out(details: bytes) -> None:
    error = Failure(grpc.StatusCode.UNAVAILABLE, details)
    refusal = refusal_of(error, ADDRESS)
    assert isinstance(refusal, Unavailable)
    assert refusal.reason is Reason.OWNER_UNREACHABLE
    assert str(refusal).endswith("UNAVAILABLE: it says so")
    assert route_of_refusal(error) == AT_THE_OWNER
