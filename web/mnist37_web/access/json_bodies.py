"""JSON from callers, parsed within limits: a small text can make a million objects."""

from __future__ import annotations

import gc
import re
from typing import Any, NamedTuple

import orjson

from mnist37_web.errors import bad_request


class Limits(NamedTuple):
    """How much a JSON text may hold, in counts of the characters that begin or divide values."""

    commas: int
    lists: int
    objects: int = 200
    strings: int = 2_000
    escapes: int = 10_000


# Their counts take 0.4 ms per MiB. Parsed without them, 8 MiB of empty lists take 0.9 s.
CHARACTERS = {
    "commas": (b",", 1, "values"),
    "lists": (b"[", 1, "lists"),
    "objects": (b"{", 1, "objects"),
    "strings": (b'"', 2, "texts"),
    "escapes": (b"\\", 1, "backslashes"),
}
SMALL_BYTES = 262_144  # of empty lists take 30 ms; to count takes a quarter of the parser's time
STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def check_limits(text: bytes, limits: Limits) -> None:
    """Raise HttpError if a JSON text may hold more than its limits."""
    for name, limit in limits._asdict().items():
        character, each, values = CHARACTERS[name]
        if (count := text.count(character) // each) > limit:
            raise bad_request(f"the body has {count:,} {values}; must be at most {limit:,}")


def load_object(text: bytes, limits: Limits | None = None) -> dict[str, Any]:
    """Return a JSON object.

    Args:
        text: the JSON.
        limits: of a text of more than SMALL_BYTES; None if no text can be so large.

    Raises:
        HttpError: the text is no object, or exceeds its limits.
    """
    try:
        if limits is not None and len(text) > SMALL_BYTES:
            check_limits(text, limits)
            content = load_without_collector(text)
        else:
            content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise bad_request("the body is not a JSON object")
    return content


def load_without_collector(text: bytes) -> Any:  # noqa: ANN401
    """Return the value of a JSON text; a tree has no cycles, so the garbage collector rests.

    It would begin again and again while the lists are made: for 155,000 of them, 0.2 s more.
    """
    gc.disable()
    try:
        return orjson.loads(text)
    finally:
        gc.enable()


def check_members(text: bytes, members: int) -> None:
    """Raise HttpError if an object has a name twice: of two values, the parser takes the last one.

    Args:
        text: valid JSON.
        members: the number of names and values that the parser has found in its objects.
    """
    # Each has a colon. Colons in strings are rare, and taken out only if the numbers differ.
    if text.count(b":") != members and STRING.sub(b"", text).count(b":") != members:
        raise bad_request("the body has a name twice in one object; each must be there once")


def check_names(field: str, content: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise HttpError if an object has another name than these.

    Args:
        field: the path to the object with a dot at its end, or nothing.
        content: the object.
        names: that it may have.
    """
    if not content.keys() <= set(names):
        unknown = next(name for name in content if name not in names)
        text = f"{field}{unknown[:64]!r}: unknown; must be {', '.join(names) or 'left out'}"
        raise bad_request(text)


def show(value: object) -> str:
    """Return a value of a request for an error's text, shortened."""
    if isinstance(value, str):
        return repr(value[:64])
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "an object"
        return f"{kind} of {len(value):,}"
    return orjson.dumps(value).decode()
