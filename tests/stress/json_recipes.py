"""JSON texts that are almost right. Random bytes hardly ever form one.

A recipe is any bytes. Each byte decides one thing: whether a member is there, and is right or odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

# A mapping is an object, a list of one shape an array of it, and a tuple holds the right values.
Shape: TypeAlias = "Mapping[str, Shape] | list[Shape] | tuple[str, ...]"

ODD = (
    *("null", "true", "0", "-1", "0.5", "1e999", "-1e400", "1e-400", "NaN", "-Infinity"),
    *("9007199254740993", "18446744073709551616", "1" * 400, "[]", "{}", "[[[]]]", "[null]"),
    *('""', '"7"', '"-0.0"', '"Infinity"', '"AA"', '"%%"', '"\\u0000"', '"\\ud800"', '"\\udfff a"'),
    *('"\\u202e"', '"\\u001b[0m"', '"é"', '"' + "x" * 5000 + '"', '{"a": {"a": 1}}', '"1.5s"'),
    *('"1e9s"', '"a', "}", "", "'a'", "01", "+1", ".5"),
)
ODD_NAMES = ('"a"', '""', '"\\ud800"', '"__class__"', '"@type"', '"[a.b]"', "1", "null")
SCALARS = {
    FieldDescriptor.TYPE_STRING: ('"a"', '"best@1"'),
    FieldDescriptor.TYPE_BYTES: ('"AAAA"', '"_-8="'),
    FieldDescriptor.TYPE_BOOL: ("true", "false"),
    FieldDescriptor.TYPE_FLOAT: ("0.5", '"NaN"', "1"),
    FieldDescriptor.TYPE_DOUBLE: ("0.5", "1"),
}
WHOLE_NUMBERS = ("3", '"3"', "3.0")


class Recipe:
    """The decisions of a recipe, of which the first is always taken once no byte is left."""

    def __init__(self, content: bytes) -> None:
        self._bytes: Iterator[int] = iter(content)

    def pick(self, choices: Sequence[str]) -> str:
        """Return one of the choices."""
        return choices[next(self._bytes, 0) % len(choices)]


def shape_of(message: Any) -> Shape:
    """Return the shape of a message in protobuf's JSON, from its descriptor."""
    if message.full_name.startswith("google.protobuf."):  # of which Duration alone is in use
        return ('"0.5s"', '"3s"')
    return {
        field.json_name: [_shape(field)] if field.is_repeated else _shape(field)
        for field in message.fields
    }


def _shape(field: FieldDescriptor) -> Shape:
    if field.message_type:
        return shape_of(field.message_type)
    if field.enum_type:
        return (*(f'"{value.name}"' for value in field.enum_type.values), "1")
    return SCALARS.get(field.type, WHOLE_NUMBERS)


def write(shape: Shape, recipe: Recipe) -> str:
    """Return a JSON text of a shape, with the oddities that the recipe asks for."""
    how = recipe.pick(("right", "right", "right", "odd", "list", "repeated"))
    if how == "odd":
        return recipe.pick(ODD)
    if how == "list":
        return f"[{_right(shape, recipe)}]"
    if how == "repeated" and isinstance(shape, list):
        return f"[{write(shape[0], recipe)}, {write(shape[0], recipe)}]"
    return _right(shape, recipe)


def _right(shape: Shape, recipe: Recipe) -> str:
    if isinstance(shape, tuple):
        return recipe.pick(shape)
    if isinstance(shape, list):
        return f"[{write(shape[0], recipe)}]"
    members = []
    for name, member in shape.items():
        how = recipe.pick(("there", "there", "missing", "twice", "renamed"))
        if how == "missing":
            continue
        text = recipe.pick(ODD_NAMES) if how == "renamed" else f'"{name}"'
        members += [f"{text}: {write(member, recipe)}"] * (2 if how == "twice" else 1)
    return "{" + ", ".join(members) + "}"
