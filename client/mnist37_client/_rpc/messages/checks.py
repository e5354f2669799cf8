"""The checks of a server's answers: another server, or a later one, may say anything."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from mnist37_client.errors import InvalidResponse

M = TypeVar("M", bound=Message)

DURATION_SECONDS_MAX = 315_576_000_000  # of google.protobuf.Duration: 10,000 years


def decode(kind: type[M], content: bytes) -> M:
    """Return the message in these bytes.

    Raises:
        InvalidResponse: they are no such message.
    """
    try:
        return kind.FromString(content)
    except DecodeError:
        raise InvalidResponse(
            f"the server's answer is no {kind.DESCRIPTOR.full_name}: its {len(content):,} bytes"
            " cannot be decoded"
        ) from None


def invalid(field: str, got: object, expected: str) -> InvalidResponse:
    """Return the error for a field of an answer."""
    text = f"{field}: got {got}; must be {expected}"
    return InvalidResponse(f"the server's answer is not valid: {text}")


def check_version(version: int, expected: int | str | None) -> None:
    """Raise InvalidResponse unless the version is the expected one; a tag or None means any."""
    if isinstance(expected, int) and version != expected:
        raise invalid("version", version, f"{expected}, as the request says")


def check_falls(field: str, numbers: Iterable[int]) -> None:
    for newer, older in pairwise(numbers):
        if newer <= older:
            raise invalid(field, f"{older} after {newer}", "the newest first, each once")


def unit(field: str, value: float) -> float:
    """Return a loss or an accuracy: a mean of numbers in 0..1."""
    if not 0 <= value <= 1:  # true for NaN too
        raise invalid(field, value, "in 0..1")
    return value


def printable(field: str, text: str) -> str:
    if not text.isprintable():
        raise invalid(field, reprlib.repr(text), "printable")
    return text


def optional(message: Message, field: str) -> Any:  # noqa: ANN401 - the field's type
    """Return the value of an optional field; None if it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def positive(field: str, value: int) -> int:
    if value < 1:
        raise invalid(field, value, "1 or more")
    return value


def enum_name(enum: EnumTypeWrapper, number: int) -> str:
    """Return the name of a value without its prefix; a later server may have further values."""
    try:
        name = enum.Name(number)
    except ValueError:
        return f"unknown ({number})"
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).lower()


def time(field: str, message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError):
        got = f"{message.seconds} s and {message.nanos} ns"
        raise invalid(field, got, "a time in the years 1 to 9999") from None


def seconds(field: str, message: Duration) -> float:
    if not (0 <= message.seconds <= DURATION_SECONDS_MAX and 0 <= message.nanos < 10**9):
        got = f"{message.seconds} s and {message.nanos} ns"
        raise invalid(field, got, "a duration from 0 to 10,000 years")
    return message.ToNanoseconds() / 1e9
