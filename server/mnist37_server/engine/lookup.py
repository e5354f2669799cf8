"""Look up a version by its number or by a tag."""

from __future__ import annotations

from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.errors import tag_unknown, version_not_retained
from mnist37_server.storage.store import Store


def find_version(store: Store, version: int | str, newest: int) -> Snapshot:
    """Return a retained version.

    Args:
        store: has the retained versions and the tags.
        version: the number of the version, or a tag.
        newest: the newest version, for the error.

    Raises:
        NotFound: the version is not retained, or there is no such tag.
    """
    if isinstance(version, int):
        number, snapshot = version, store.version(version)
    else:
        number, snapshot = _find_tagged(store, version)
    if snapshot is None:
        raise version_not_retained(number, newest)
    return snapshot


def _find_tagged(store: Store, tag: str) -> tuple[int, Snapshot | None]:
    while True:
        number = store.resolve(tag)
        if number is None:
            raise tag_unknown(tag)
        snapshot = store.version(number)
        # The tag may have moved, and its earlier version been dropped, between the two calls.
        if snapshot is not None or store.resolve(tag) == number:
            return number, snapshot
