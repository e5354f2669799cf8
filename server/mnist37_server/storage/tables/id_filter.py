"""A filter that tells, for nearly every new request_id, that it is new without a query."""

from __future__ import annotations

from collections.abc import Iterable


class IdFilter:
    """A Bloom filter with one hash function (B. H. Bloom, 1970).

    An id that is not in the filter is certainly new. An id that is in the filter may be new too.
    The filter removes no id: for an id that the database has since deleted, a lookup costs one
    query without a result.

    Args:
        ids: the ids in the database.
    """

    # Bytes. With a million ids in the filter, it takes 6 % of the new ids for stored ones.
    SIZE = 2**24

    def __init__(self, ids: Iterable[str]) -> None:
        self._flags = bytearray(self.SIZE)
        for request_id in ids:
            self.add(request_id)

    def add(self, request_id: str) -> None:
        """Add an id to the filter."""
        self._flags[hash(request_id) % self.SIZE] = 1

    def __contains__(self, request_id: str) -> bool:
        return self._flags[hash(request_id) % self.SIZE] == 1
