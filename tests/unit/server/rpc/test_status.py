"""Tests of refusals from server to client: each arrives as its own exception, with its details."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as Any_
from google.rpc.status_pb2 import Status
from mnist37_client import errors as client_errors
from mnist37_client._rpc.failures import status as client_status
from mnist37_client._rpc.failures.asyncio_errors import translate_errors
from mnist37_client._rpc.failures.status import from_rpc
from mnist37_client.errors import Mnist37Error
from mnist37_server import errors as server_errors
from mnist37_server.errors import Reason, Refusal
from mnist37_server.rpc.status import (
    CODES,
    RETRY_AFTER_SECONDS,
    cancellable_unary_handler,
    stream_handler,
)

TEXT = "no healthy upstream"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
LONGEST_ID = "\U000e0001" * 128  # the id that is longest in UTF-8


def refusals() -> list[type[Refusal]]:
    return Refusal.__subclasses__()


def example(refusal: type[Refusal], reason: Reason | None = None) -> Refusal:
    if refusal is server_errors.InvalidArgument:
        return server_errors.InvalidArgument("batch.labels", "got 2", "must be 1 or 0")
    return refusal(
        f"request_id: {LONGEST_ID!r} is odd; try 2 < 3 \N{SNOWMAN}", reason, request_id=LONGEST_ID
    )


class Service:
    """A service that fails every call with `error`."""

    def __init__(self) -> None:
        self.error: Exception = RuntimeError("secret")

    @cancellable_unary_handler
    def one(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        raise self.error

    @stream_handler
    def many(self, _request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        raise self.error

    def strange(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Fail with details that a proxy between client and server might send."""
        context.set_trailing_metadata((("grpc-status-details-bin", request),))
        context.abort(grpc.StatusCode.UNAVAILABLE, TEXT)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Service, str]]:
    """Return the service and the address that it listens on."""
    service = Service()
    handlers: dict[str, Any] = {
        "one": grpc.unary_unary_rpc_method_handler(service.one),
        "many": grpc.unary_stream_rpc_method_handler(service.many),
        "strange": grpc.unary_unary_rpc_method_handler(service.strange),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()


def ask(address: str, method: str, request: bytes = b"") -> Mnist37Error:
    """Make a call that fails, and return the client's exception."""
    with grpc.insecure_channel(address) as grpc_channel:
        channel: Any = grpc_channel
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream(f"/test/{method}")(request, timeout=10))
        return from_rpc(caught.value, address)


def ask_async(address: str) -> Mnist37Error:
    async def ask() -> None:
        async with grpc.aio.insecure_channel(address) as grpc_channel:
            channel: Any = grpc_channel
            with translate_errors(address, lambda: False):
                await channel.unary_unary("/test/one")(b"", timeout=10)

    with pytest.raises(Mnist37Error) as caught:
        asyncio.run(ask())
    return caught.value


@pytest.mark.parametrize("how", ["one", "many", "asyncio"])
@pytest.mark.parametrize("refusal", refusals())
def test_a_refusal_makes_the_round_trip(
    service: tuple[Service, str], refusal: type[Refusal], how: str
) -> None:
    service[0].error = error = example(refusal)
    address = service[1]
    got = ask_async(address) if how == "asyncio" else ask(address, how)
    if refusal is server_errors.FailedPrecondition:  # which has an exception for each reason
        assert type(got) is client_errors.NotOwner
    else:
        assert type(got) is client_status.EXCEPTIONS[CODES[refusal]]
    assert got.reason == error.reason.name
    assert got.retry_after == RETRY_AFTER_SECONDS.get(error.reason)
    if isinstance(error, server_errors.InvalidArgument):
        assert isinstance(got, client_errors.InvalidInput)
        assert got.field == "batch.labels"
    if not isinstance(got, client_errors.DeadlineExceeded):  # the client has its own text
        assert str(error) in str(got)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_makes_the_round_trip(service: tuple[Service, str], reason: Reason) -> None:
    service[0].error = example(server_errors.Exhausted, reason)
    got = ask(service[1], "one")
    assert (got.reason, got.retry_after) == (reason.name, RETRY_AFTER_SECONDS.get(reason))


def test_an_unexpected_error_has_a_reason_and_no_details(service: tuple[Service, str]) -> None:
    service[0].error = RuntimeError("secret")
    got = ask(service[1], "one")
    assert isinstance(got, client_errors.ServerError)
    assert (got.reason, got.retry_after) == ("INTERNAL", None)
    assert "secret" not in repr(got.__cause__) + str(got)


def test_the_client_has_one_exception_for_each_refusal() -> None:
    seen = {client_status.EXCEPTIONS[CODES[refusal]] for refusal in refusals()}
    # To a caller MalformedMessage is an InvalidInput, and three are Unavailable.
    shared = {
        server_errors.MalformedMessage,
        server_errors.StorageBusy,
        server_errors.Unavailable,
    }
    assert len(seen) == len({*refusals()} - shared)


@pytest.mark.parametrize(
    "details",
    [
        b"",
        b"\xff\xff\xff",  # not a message
        b"\x08\x05\x12\x05other",  # a Status with another code and text
        Status(code=14, message=TEXT, details=[Any_(type_url=ERROR_INFO, value=b"\xff")]),
        Status(code=14, message=TEXT, details=[Any_(type_url="another.com/Thing")]),
    ],
)
def test_an_error_of_a_proxy_is_understood_without_its_details(
    service: tuple[Service, str], details: bytes | Status
) -> None:
    sent = details if isinstance(details, bytes) else details.SerializeToString()
    got = ask(service[1], "strange", sent)
    assert type(got) is client_errors.Unavailable
    assert str(got) == f"{service[1]}: {TEXT}"
    assert not got.reason
    assert got.retry_after is None
