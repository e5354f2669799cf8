"""The way from the owner of a model to a server, over the followers in between."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """The owner of a model, and the followers that pass its versions on to a server."""

    owner: str = ""  # its address, as the follower next to it has it; empty at the owner itself
    followers: tuple[str, ...] = ()  # their ids from the owner on; the server itself is the last


AT_THE_OWNER = Route()
