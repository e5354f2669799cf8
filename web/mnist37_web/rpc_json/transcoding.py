"""Messages of mnist37.v1 as JSON and back: protobuf's own JSON mapping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from json import JSONDecodeError
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from mnist37_client._rpc.messages.checks import decode
from mnist37_client.errors import one_line

from mnist37_web.access.json_bodies import Limits, check_limits
from mnist37_web.errors import bad_request
from mnist37_web.rpc_json.faults import find_fault

# No request has more than 30 values; the only list, ListRuns' states, needs 4.
LIMITS = Limits(commas=1_000, lists=100, objects=100, strings=1_000)
# A larger message is converted on a thread: 1,000 runs take 0.2 s, in which other requests go on.
LOOP_BYTES_MAX = 16_384

T = TypeVar("T")


def parse(kind: type[Message], text: bytes) -> bytes:
    """Return the serialized message of a JSON object.

    Args:
        kind: of the message.
        text: the JSON. Names of fields may be those of the .proto file, or lowerCamelCase.

    Raises:
        HttpError: the text is no such message; names the field and says why.
    """
    check_limits(text, LIMITS)
    if text.lstrip()[:1] not in (b"{", b""):  # protobuf's parser takes [] and "" for an object
        raise bad_request("the body is not a JSON object")
    try:
        return json_format.Parse(text, kind()).SerializeToString()
    except UnicodeError:
        raise bad_request("the body is not UTF-8") from None
    except json_format.ParseError as error:
        raise bad_request(_describe(kind, text, error)) from None


def _describe(kind: type[Message], text: bytes, error: json_format.ParseError) -> str:
    """Return what is wrong with a body that is no message."""
    cause = error.__cause__
    if isinstance(cause, RecursionError):
        return "the body has too many levels"
    fault = find_fault(kind, text)
    if fault is None:  # protobuf says itself what is wrong with the JSON, or with two fields
        is_long_number = isinstance(cause, ValueError) and not isinstance(cause, JSONDecodeError)
        fault = "a number has too many digits" if is_long_number else one_line(str(error))
    return f"the body is no {kind.DESCRIPTOR.name}: {fault}"


def write(kind: type[Message], content: bytes) -> bytes:
    """Return the JSON of a serialized message, in one line; zeros are there, unset fields are not.

    Raises:
        InvalidResponse: the content is no such message.
    """
    message = decode(kind, content)
    text = json_format.MessageToJson(
        message, indent=None, always_print_fields_with_no_presence=True, ensure_ascii=False
    )
    return text.encode()


async def convert(
    function: Callable[[type[Message], bytes], T], kind: type[Message], content: bytes
) -> T:
    """Return what `parse` or `write` returns; a large content does not hold the event loop."""
    if len(content) <= LOOP_BYTES_MAX:
        return function(kind, content)
    return await asyncio.to_thread(function, kind, content)
