"""Find the field for which JSON is no message, and say what it has and what would be right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mnist37_web.access.json_bodies import show

LITERAL_MAX = 64  # characters of a value in a text
EXPECTED = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a text without halves of characters",
    FieldDescriptor.CPPTYPE_FLOAT: "a number of 32 bits",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number from 0 to 4,294,967,295",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number from 0 to 18,446,744,073,709,551,615",
}
DURATION = "google.protobuf.Duration"


def find_fault(kind: type[Message], text: bytes) -> str | None:
    """Return what is wrong with the first field that protobuf does not take.

    Args:
        kind: of the message.
        text: the JSON.

    Returns:
        A sentence, or None if no single field is wrong, or the text is no JSON.
    """
    try:
        content = json.loads(text.decode())  # bytes could be UTF-16 too
    except ValueError:
        return None
    return next(_faults(kind, content, ""), None)


def _faults(kind: type[Message], content: Any, path: str) -> Iterator[str]:  # noqa: ANN401
    """Yield what is wrong with each field; `path` leads to the object, with a dot at its end."""
    fields: Any = kind.DESCRIPTOR.fields  # protobuf has two classes of descriptors
    by_name = {name: field for field in fields for name in (field.name, field.json_name)}
    for name, value in content.items():
        field = by_name.get(name)
        if field is None:
            names = ", ".join(field.json_name for field in fields) or "left out"
            yield f"{path}{name[:LITERAL_MAX]!r}: unknown; must be {names}"
        elif not _takes(kind, name, value):
            message = field.message_type
            if message and message.full_name != DURATION and isinstance(value, dict):
                yield from _faults(GetMessageClass(message), value, f"{path}{name}.")
            else:
                yield f"{path}{name}: got {_show(value)}; must be {_expected(field)}"


def _takes(kind: type[Message], name: str, value: Any) -> bool:  # noqa: ANN401
    try:
        json_format.ParseDict({name: value}, kind())
    except Exception:  # noqa: BLE001 - whatever Python raises for a value of another type
        return False
    return True


def _show(value: object) -> str:
    if isinstance(value, str | list | dict):
        return show(value)
    return json.dumps(value)[:LITERAL_MAX]


def _expected(field: Any) -> str:  # noqa: ANN401
    if field.message_type:
        text = 'a duration, as "0.5s"' if field.message_type.full_name == DURATION else "an object"
    elif field.enum_type:
        text = ", ".join(value.name for value in field.enum_type.values)
    else:
        is_base64 = field.type == FieldDescriptor.TYPE_BYTES
        text = "base64" if is_base64 else EXPECTED[field.cpp_type]
    return f"a list, each item {text}" if field.is_repeated else text
