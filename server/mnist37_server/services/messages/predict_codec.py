"""Decode and encode the messages of Predict, without a copy of the pixels.

protobuf would copy the pixels, which takes longer than a prediction. This module reads messages as
protobuf writes them: the pixels first, then the version, the floor's version and the floor's start.
It passes every other message (a tag, unknown fields, another order) to protobuf.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.domain.position import Floor, Position
from mnist37_server.services.messages.requests import parse_floor, parse_version

# The wire format (protobuf.dev/programming-guides/encoding): a field begins with a tag, which holds
# its number and its wire type. A length or a version follows as a varint: seven bits in each byte,
# the lowest bits first; the eighth bit is set if another byte follows.
LENGTH_BYTES_MAX, VERSION_BYTES_MAX = 5, 10  # of a varint; protobuf refuses longer ones
PIXELS_TAG = bytes([pb.PredictRequest.PIXELS_FIELD_NUMBER << 3 | 2])
VERSION_REQUEST_TAG = pb.PredictRequest.VERSION_FIELD_NUMBER << 3
MIN_VERSION_TAG = pb.PredictRequest.MIN_VERSION_FIELD_NUMBER << 3
START_REQUEST_TAG = pb.PredictRequest.START_FIELD_NUMBER << 3 | 1
START_RESPONSE_TAG = bytes([pb.PredictResponse.START_FIELD_NUMBER << 3 | 1])
FIXED_64 = struct.Struct("<Q")
TAIL_BYTES_MAX = 31  # of a version, a floor's version and a floor's start, with their tags
PROBABILITIES_TAG = bytes([pb.PredictResponse.PROBABILITIES_FIELD_NUMBER << 3 | 2])
VERSION_RESPONSE_TAG = bytes([pb.PredictResponse.VERSION_FIELD_NUMBER << 3])


class PredictFields(NamedTuple):
    """A decoded PredictRequest. The pixels stay in the message."""

    message: bytes
    offset: int  # of the pixels in the message
    size: int  # of the pixels, in bytes
    version: int | str | None  # its number, or a tag; None: the newest
    floor: Floor | None  # the position that the model must have reached; None: any


def decode(message: bytes) -> PredictFields:
    """Return the fields of a serialized PredictRequest.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not a PredictRequest.
        InvalidArgument: both a version and a tag are set, or the tag is too long.
    """
    size = len(message)
    header = _encode_pixels_header(size)
    if header is not None and message.startswith(header):
        offset = len(header)
        return PredictFields(message, offset, size - offset, None, None)
    try:
        if message[0] == PIXELS_TAG[0]:
            length, offset = read_varint(message, 1)
            end = offset + length
            # Callers with the same floor send the same bytes, so what they say is cached.
            if 0 < size - end <= TAIL_BYTES_MAX:
                read = _read_version_and_floor(message[end:])
                if read is not None:
                    return PredictFields(message, offset, length, *read)
    except IndexError:
        pass
    request = pb.PredictRequest.FromString(message)
    return PredictFields(
        request.pixels, 0, len(request.pixels), parse_version(request), parse_floor(request)
    )


@lru_cache
def _read_version_and_floor(message: bytes) -> tuple[int | None, Floor | None] | None:
    """Return what follows the pixels, each part of which may be missing; None for anything else.

    Args:
        message: the end of a message, after the pixels.

    Raises:
        IndexError: the message ends within a number.
    """
    offset, size = 0, len(message)
    version = min_version = start = None
    if offset < size and message[offset] == VERSION_REQUEST_TAG:
        version, offset = read_varint(message, offset + 1, VERSION_BYTES_MAX)
    if offset < size and message[offset] == MIN_VERSION_TAG:
        min_version, offset = read_varint(message, offset + 1, VERSION_BYTES_MAX)
    if offset + 9 == size and message[offset] == START_REQUEST_TAG:
        (start,) = FIXED_64.unpack_from(message, offset + 1)
        offset = size
    if offset != size or (version or 0) >= 2**64 or (min_version or 0) >= 2**64:
        return None
    has_floor = min_version is not None or start is not None
    return version, Floor(start, min_version) if has_floor else None


def encode(probabilities: bytearray, position: Position) -> bytes:
    """Return a serialized PredictResponse.

    Args:
        probabilities: the probabilities as little-endian float32.
        position: the server's start, and the version of the model.
    """
    return (
        _encode_probabilities_header(len(probabilities))
        + probabilities
        + _encode_position(position)
    )


# Most messages have one of a few sizes, so the bytes around their contents are cached.


@lru_cache
def _encode_pixels_header(size: int) -> bytes | None:
    # The bytes before the pixels in a message of `size` bytes that holds only pixels; None if no
    # such message has this size.
    for length in range(max(0, size - 1 - LENGTH_BYTES_MAX), size):
        header = PIXELS_TAG + _encode_varint(length)
        if len(header) + length == size:
            return header
    return None


@lru_cache
def _encode_probabilities_header(length: int) -> bytes:
    return PROBABILITIES_TAG + _encode_varint(length)


@lru_cache
def _encode_position(position: Position) -> bytes:
    start, version = position
    encoded = VERSION_RESPONSE_TAG + _encode_varint(version) if version else b""
    return encoded + (START_RESPONSE_TAG + FIXED_64.pack(start) if start else b"")


def read_varint(message: bytes, start: int, bytes_max: int = LENGTH_BYTES_MAX) -> tuple[int, int]:
    """Return the varint at an offset of a message, and the offset after it.

    Raises:
        IndexError: the varint does not end within `bytes_max` bytes, or within the message.
    """
    number = 0
    for i in range(bytes_max):
        byte = message[start + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, start + i + 1
    raise IndexError


def _encode_varint(number: int) -> bytes:
    # mnist37_web.rest.inference has this too, and may not be imported here.
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
