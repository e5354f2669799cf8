"""The fields of the page's requests: JSON objects, checked before anything is done."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson
from mnist37_client.images import PIXELS

from mnist37_web.access.json_bodies import check_names, load_object
from mnist37_web.errors import bad_request

BODY_MAX = 4_096  # bytes: an image takes 1,100
NAMES = {int: "a whole number", float: "a number", str: "a text"}


def parse_object(body: bytes, **types: type) -> dict[str, Any]:
    """Return the fields of a JSON object, None for a field that is missing.

    Args:
        body: the JSON.
        types: of the fields that the object may have: int, float or str.

    Raises:
        HttpError: the body is no such object.
    """
    content = load_object(body)
    check_names("", content, tuple(types))
    return {name: parse_field(content, name, kind) for name, kind in types.items()}


def parse_field(content: Mapping[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401
    """Return a field, or None if it is missing or null; raise HttpError if its type is another."""
    value = content.get(name)
    accepted = (int, float) if kind is float else (kind,)
    if value is None or (isinstance(value, accepted) and not isinstance(value, bool)):
        return value
    raise bad_request(f"{name}: got {orjson.dumps(value).decode()[:64]}; must be {NAMES[kind]}")


def parse_pixels(encoded: str | None) -> bytes:
    """Return the 784 pixels that base64 encodes; raise HttpError if it encodes no image."""
    try:
        pixels = base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        pixels = b""
    if len(pixels) != PIXELS:
        raise bad_request(f"pixels: must be {PIXELS} bytes in base64")
    return pixels


def parse_version(version: str | None) -> int | str | None:
    """Return the number of a version or a tag; None means the newest version."""
    if version is not None and version.isascii() and version.isdecimal():
        return int(version)
    return version
