"""Which request_ids may be known: of nearly every new one it can be said without the database."""

from __future__ import annotations

from collections.abc import Iterable


class IdFilter:
    """A Bloom filter with one probe: what is not in it is surely new, what is in it may be.

    Nothing ever leaves it; an id that was forgotten costs a look into the database, no more.

    Args:
        ids: that are known.
    """

    SIZE = 2**24  # bytes; of a million ids 6 % of the new ones are taken for known

    def __init__(self, ids: Iterable[str]) -> None:
        self._taken = bytearray(self.SIZE)
        for known in ids:
            self.add(known)

    def add(self, known: str) -> None:
        """From now on this id may be known."""
        self._taken[hash(known) % self.SIZE] = 1

    def __contains__(self, asked: str) -> bool:
        return self._taken[hash(asked) % self.SIZE] == 1
