"""A limit for the number of fields in a message, checked before protobuf parses it.

protobuf makes an object of some 90 bytes of each empty message of 2 bytes. So a message of 64 MiB
can take 3 GB, and protobuf holds the interpreter lock for seconds while it parses.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from google.protobuf.descriptor import Descriptor

from mnist37_server.errors import MalformedMessage
from mnist37_server.services.messages.predict_codec import read_varint

FIELDS_MAX = 4096  # in a message and in the messages within it
TAG_BYTES_MAX, VALUE_BYTES_MAX = 5, 10  # of a varint
VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5  # wire types
FIXED_SIZES = {FIXED_64: 8, FIXED_32: 4}


def check_fields(message: bytes, descriptor: Descriptor) -> None:
    """Raise MalformedMessage if a message has more than FIELDS_MAX fields, at any depth.

    A packed field counts once, whatever the number of its values. Bytes that are no message pass:
    protobuf finds that out by itself.

    Args:
        message: the serialized message.
        descriptor: its type.
    """
    with suppress(IndexError):
        _count(message, 0, len(message), descriptor, 0)


def _count(message: bytes, offset: int, end: int, descriptor: Descriptor, count: int) -> int:
    """Return `count` plus the number of fields between two offsets of a message."""
    types = _message_types(descriptor)
    while offset < end:
        count += 1
        if count > FIELDS_MAX:
            raise MalformedMessage(
                f"the message has more than {FIELDS_MAX:,} fields; send one tensor, and its values"
                " raw or packed"
            )
        tag, offset = read_varint(message, offset, TAG_BYTES_MAX)
        wire_type = tag & 7
        if wire_type == LENGTH_DELIMITED:
            size, offset = read_varint(message, offset)
            field_type = types.get(tag >> 3)
            if field_type is not None:
                count = _count(message, offset, min(offset + size, end), field_type, count)
            offset += size
        elif wire_type == VARINT:
            _, offset = read_varint(message, offset, VALUE_BYTES_MAX)
        elif wire_type in FIXED_SIZES:
            offset += FIXED_SIZES[wire_type]
        # The two wire types of groups have no value: what is within a group is counted here too.
    return count


@cache
def _message_types(descriptor: Descriptor) -> dict[int, Descriptor]:
    """Return the types of the fields that are messages, by the fields' numbers."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.message_type is not None
    }
