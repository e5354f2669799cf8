"""A cache of versions of the model in memory."""

from __future__ import annotations

from mnist37_server.domain.snapshot import Snapshot


class VersionCache:
    """The versions that were added last. A version never changes, so a copy is as good as it.

    Any thread may read; one thread at a time may add.

    Args:
        capacity: the most versions.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._versions: dict[int, Snapshot] = {}  # in the order of their addition

    def get(self, version: int) -> Snapshot | None:
        """Return a version; None if it is not in the cache."""
        return self._versions.get(version)

    def add(self, snapshot: Snapshot) -> None:
        """Add a version, and drop the one that was added first if there are too many."""
        self._versions[snapshot.version] = snapshot
        if len(self._versions) > self._capacity:
            del self._versions[next(iter(self._versions))]

    def numbers(self) -> list[int]:
        """Return the numbers of the versions, in no order."""
        return list(self._versions)
