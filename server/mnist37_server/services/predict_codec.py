"""Predict's two messages, read and written as bytes: a prediction takes less than their copying.

What is read here is what protobuf writes: the pixels first, the version after them. Whatever else
is right too (unknown fields, another order) is left to protobuf itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from mnist37_protos.v1 import mnist37_pb2 as pb

# A field begins with its number and kind; a length or a version follows as a varint: seven bits a
# byte, the lowest first, the eighth bit set where more follow.
LENGTH_BYTES, VERSION_BYTES = 5, 10  # at the most; protobuf refuses longer ones
PIXELS_TAG = bytes([pb.PredictRequest.PIXELS_FIELD_NUMBER << 3 | 2])
VERSION_ASKED = pb.PredictRequest.VERSION_FIELD_NUMBER << 3
PROBABILITIES = bytes([pb.PredictResponse.PROBABILITIES_FIELD_NUMBER << 3 | 2])
VERSION_ANSWERED = bytes([pb.PredictResponse.VERSION_FIELD_NUMBER << 3])


class PredictFields(NamedTuple):
    """A PredictRequest."""

    message: bytes  # has the pixels, which are not copied,
    start: int  # from here on,
    size: int  # so many bytes
    version: int | None


def decode(message: bytes) -> PredictFields:
    """Reads a PredictRequest.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    size = len(message)
    head = _nothing_but_pixels(size)
    if head is not None and message.startswith(head):
        start = len(head)
        return PredictFields(message, start, size - start, None)
    try:
        if message[0] == PIXELS_TAG[0]:
            length, start = varint(message, 1)
            end = start + length
            if message[end] == VERSION_ASKED:
                version, after = varint(message, end + 1, VERSION_BYTES)
                if after == size and version < 2**64:
                    return PredictFields(message, start, length, version)
    except IndexError:
        pass
    request = pb.PredictRequest.FromString(message)
    asked = request.version if request.HasField("version") else None
    return PredictFields(request.pixels, 0, len(request.pixels), asked)


def encode(probabilities: bytearray, version: int) -> bytes:
    """Writes a PredictResponse; the probabilities are little-endian float32."""
    return _start_of_probabilities(len(probabilities)) + probabilities + _version(version)


# What messages are made of besides their content is the same in most of them.


@lru_cache
def _nothing_but_pixels(size: int) -> bytes | None:
    """What a message of `size` bytes begins with if it has pixels and nothing else."""
    for length in range(max(0, size - 1 - LENGTH_BYTES), size):
        start = PIXELS_TAG + _as_varint(length)
        if len(start) + length == size:
            return start
    return None


@lru_cache
def _start_of_probabilities(length: int) -> bytes:
    return PROBABILITIES + _as_varint(length)


@lru_cache
def _version(version: int) -> bytes:
    return VERSION_ANSWERED + _as_varint(version) if version else b""


def varint(message: bytes, start: int, most: int = LENGTH_BYTES) -> tuple[int, int]:
    """The number that begins there, and where it ends; IndexError if not in `most` bytes."""
    number = 0
    for place in range(most):
        byte = message[start + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, start + place + 1
    raise IndexError


def _as_varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
