"""Tests of the look-up of a version by a tag that moves meanwhile."""

from __future__ import annotations

from typing import cast

import pytest
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.lookup import find_version
from mnist37_server.errors import NotFound
from mnist37_server.storage.store import Store


class MovingTag:
    """A store whose tag moves from version 1 to version 2 after the first look-up."""

    def __init__(self, retained: set[int]) -> None:
        self._retained = retained
        self._numbers = [1]

    def resolve(self, tag: str) -> int | None:
        return (self._numbers.pop() if self._numbers else 2) if tag == "best@1" else None

    def version(self, number: int) -> Snapshot | None:
        content = bytes(4 * 785)
        is_retained = number in self._retained
        return Snapshot(number, content, 0, Origin.TRAIN, 1) if is_retained else None


def find(version: int | str, *retained: int) -> Snapshot:
    return find_version(cast(Store, MovingTag(set(retained))), version, 9)


def test_a_tag_that_moves_meanwhile_is_looked_up_again() -> None:
    assert find("best@1", 2).version == 2
    assert find("best@1", 1, 2).version == 1


def test_what_is_not_retained_is_named() -> None:
    with pytest.raises(NotFound, match=r"version: 2 is not retained; .* the model is at 9"):
        find("best@1", 3)
    with pytest.raises(NotFound, match="version: 7 is not retained"):
        find(7, 3)
    with pytest.raises(NotFound, match="there is no tag 'monday'"):
        find("monday", 3)
