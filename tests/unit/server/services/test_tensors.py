"""Tests of the decoding of a ModelInferRequest, compared with protobuf."""

from __future__ import annotations

import time

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_server.errors import MalformedMessage
from mnist37_server.services import tensors
from mnist37_server.services.field_limits import FIELDS_MAX

TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.text(),
    datatype=st.text(),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    contents=st.builds(
        pb.InferTensorContents, uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=9)
    ),
)
REQUESTS = st.builds(
    pb.ModelInferRequest,
    model_name=st.text(),
    model_version=st.text(),
    id=st.text(),
    parameters=st.dictionaries(st.text(), st.builds(pb.InferParameter, bool_param=st.booleans())),
    inputs=st.lists(TENSORS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=300), max_size=3),
)


def read(message: bytes) -> tuple[pb.ModelInferRequest, list[bytes]]:
    """Decode a message; return the request without its raw data, and the raw data."""
    decoded = tensors.decode(message)
    raw = [bytes(content) for content in decoded.raw]
    request = pb.ModelInferRequest()
    request.CopyFrom(decoded.request)
    del request.raw_input_contents[:]
    return request, raw


def read_by_protobuf(message: bytes) -> tuple[pb.ModelInferRequest, list[bytes]]:
    request = pb.ModelInferRequest.FromString(message)
    raw = list(request.raw_input_contents)
    del request.raw_input_contents[:]
    return request, raw


@settings(deadline=None)
@given(REQUESTS)
def test_messages_that_protobuf_writes(request: pb.ModelInferRequest) -> None:
    message = request.SerializeToString()
    assert read(message) == read_by_protobuf(message)


@settings(deadline=None)
@given(REQUESTS, REQUESTS)
def test_fields_in_any_order(first: pb.ModelInferRequest, then: pb.ModelInferRequest) -> None:
    message = first.SerializeToString() + then.SerializeToString()
    assert read(message) == read_by_protobuf(message)


@settings(deadline=None)
@given(REQUESTS, st.binary(max_size=12))
def test_messages_with_arbitrary_bytes(request: pb.ModelInferRequest, more: bytes) -> None:
    for message in (request.SerializeToString() + more, more + request.SerializeToString(), more):
        try:
            expected = read_by_protobuf(message)
        except DecodeError:
            with pytest.raises(DecodeError):
                read(message)
        else:
            assert read(message) == expected


@pytest.mark.parametrize("count", [1, 64, FIELDS_MAX])
def test_as_many_fields_as_are_allowed(count: int) -> None:
    message = b"\x3a\x00" * count
    assert read(message) == read_by_protobuf(message)


INPUTS, RAW = b"\x2a", b"\x3a"  # tags
MANY = 16 * 2**20


@pytest.mark.parametrize(
    "message",
    [
        (RAW + b"\0") * (FIELDS_MAX + 1),
        (INPUTS + b"\0") * MANY,
        (b"\x22\0") * MANY,  # parameters of the request
        (b"\x32\0") * MANY,  # outputs
        INPUTS + b"\x80\x80\x80\x10" + (b"\x22\0") * MANY,  # parameters of one input
        INPUTS + b"\x87\x80\x80\x10" + b"\x2a\x80\x80\x80\x10" + (b"\x42\0") * MANY,  # strings
        (b"\x0b\x0c") * MANY,  # groups
        (b"\x80\x08\0") * MANY,  # a field that the message does not have
    ],
    ids=["raw", "inputs", "parameters", "outputs", "nested", "strings", "groups", "unknown"],
)
def test_more_fields_are_refused_before_they_are_parsed(message: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(MalformedMessage, match="more than 4,096 fields; send one tensor"):
        tensors.decode(message)
    assert time.perf_counter() - start < 1


def test_a_packed_field_counts_once() -> None:
    contents = pb.InferTensorContents(uint_contents=[1] * 784 * 64)
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=[64, 784], contents=contents
    )
    message = pb.ModelInferRequest(inputs=[tensor]).SerializeToString()
    assert len(tensors.parse_images(tensors.decode(message))) == 64


def test_bytes_are_not_copied() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[2, 784])
    request = pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[bytes(2 * 784)])
    message = request.SerializeToString()
    images = tensors.parse_images(tensors.decode(message))
    assert images.shape == (2, 784)
    base = images
    while getattr(base, "base", None) is not None:
        base = base.base  # type: ignore[assignment]
    assert isinstance(base, memoryview)
    assert base.obj is message
