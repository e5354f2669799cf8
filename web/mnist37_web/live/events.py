"""The changes of what the page shows, as server-sent events."""

from __future__ import annotations

from typing import NamedTuple

import orjson


class Event(NamedTuple):
    """A change of what the page shows."""

    number: int
    content: bytes  # as server-sent events have it


def format_event(kind: str, value: object) -> bytes:
    """Return a server-sent event with a value as JSON."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(value))
