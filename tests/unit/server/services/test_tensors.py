"""A ModelInferRequest is read as protobuf reads it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_server.services import tensors

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
    """All but the raw data, and the raw data."""
    question = tensors.decode(message)
    raw = [bytes(content) for content in question.raw]
    request = pb.ModelInferRequest()
    request.CopyFrom(question.request)
    del request.raw_input_contents[:]
    return request, raw


def by_protobuf(message: bytes) -> tuple[pb.ModelInferRequest, list[bytes]]:
    request = pb.ModelInferRequest.FromString(message)
    raw = list(request.raw_input_contents)
    del request.raw_input_contents[:]
    return request, raw


@settings(deadline=None)
@given(REQUESTS)
def test_what_protobuf_writes(request: pb.ModelInferRequest) -> None:
    message = request.SerializeToString()
    assert read(message) == by_protobuf(message)


@settings(deadline=None)
@given(REQUESTS, REQUESTS)
def test_fields_in_any_order(first: pb.ModelInferRequest, then: pb.ModelInferRequest) -> None:
    message = first.SerializeToString() + then.SerializeToString()
    assert read(message) == by_protobuf(message)


@settings(deadline=None)
@given(REQUESTS, st.binary(max_size=12))
def test_whatever_else_comes(request: pb.ModelInferRequest, more: bytes) -> None:
    for message in (request.SerializeToString() + more, more + request.SerializeToString(), more):
        try:
            expected = by_protobuf(message)
        except DecodeError:
            with pytest.raises(DecodeError):
                read(message)
        else:
            assert read(message) == expected


@pytest.mark.parametrize("count", [63, 64, 65, 100_000])
def test_very_many_fields(count: int) -> None:
    message = b"\x3a\x00" * count
    assert read(message) == by_protobuf(message)


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
