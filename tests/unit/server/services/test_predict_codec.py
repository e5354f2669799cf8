"""Tests of the hand-written codec of Predict's messages, compared with protobuf."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.position import Floor, Position
from mnist37_server.services.messages.predict_codec import (
    PredictFields,
    _encode_varint,
    decode,
    encode,
    read_varint,
)
from mnist37_server.services.messages.requests import parse_floor
from mnist37_web.rest.inference import encode_varint


def pixels_of(fields: PredictFields) -> bytes:
    return fields.message[fields.offset : fields.offset + fields.size]


pixels = st.binary(max_size=3 * 784)
numbers = st.none() | st.integers(0, 2**64 - 1)


@given(pixels, numbers, numbers, numbers)
def test_a_request_is_read_as_protobuf_reads_it(
    content: bytes, version: int | None, start: int | None, min_version: int | None
) -> None:
    message = pb.PredictRequest(
        pixels=content, version=version, start=start, min_version=min_version
    ).SerializeToString()
    fields = decode(message)
    assert (pixels_of(fields), fields.version) == (content, version)
    has_floor = start is not None or min_version is not None
    assert fields.floor == (Floor(start, min_version) if has_floor else None)
    assert fields.message is message or not content, "protobuf did not copy it"


@given(st.binary(max_size=64) | st.binary(max_size=24).map(lambda rest: b"\x0a\x03abc" + rest))
@example(b"\x0a\x03abc\x20\x05\x29" + bytes(7))  # a start that is not whole
@example(b"\x0a\x03abc\x29" + bytes(8) + b"\x20\x05")  # another order
@example(b"\x0a\x03abc\x20" + b"\xff" * 9 + b"\x7f")  # a number of more than 64 bits
def test_any_bytes_are_read_as_protobuf_reads_them(message: bytes) -> None:
    try:
        request = pb.PredictRequest.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode(message)
    else:
        version = request.version if request.HasField("version") else None
        fields = decode(message)
        assert (pixels_of(fields), fields.version) == (request.pixels, version)
        assert fields.floor == parse_floor(request)


def test_a_length_in_more_bytes_than_protobuf_accepts_is_refused() -> None:
    assert pixels_of(decode(b"\x0a\x83\x80\x80\x80\x00abc")) == b"abc"
    with pytest.raises(DecodeError):
        decode(b"\x0a\x83\x80\x80\x80\x80\x00abc")


@pytest.mark.parametrize("write", [_encode_varint, encode_varint], ids=["server", "web"])
@pytest.mark.parametrize("number", [0, 1, 127, 128, 16_383, 16_384, 2**32, 2**64 - 1])
def test_a_varint_is_read_as_it_was_written(write: Callable[[int], bytes], number: int) -> None:
    written = write(number)
    assert read_varint(written, 0, 10) == (number, len(written))
    assert pb.PredictRequest(version=number).SerializeToString()[1:] == written


def test_the_pixels_are_not_copied() -> None:
    message = pb.PredictRequest(pixels=bytes(784), version=7).SerializeToString()
    assert decode(message).message is message


@given(
    st.lists(st.floats(0, 1, width=32), max_size=300),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_an_answer_is_written_as_protobuf_writes_it(
    values: list[float], start: int, version: int
) -> None:
    position = Position(start, version)
    written = encode(bytearray(np.array(values, "<f4").tobytes()), position)
    expected = pb.PredictResponse(probabilities=values, version=version, start=start)
    assert pb.PredictResponse.FromString(written) == expected
    if values:
        assert written == expected.SerializeToString()
