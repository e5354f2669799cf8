"""The tags that callers have set."""

from __future__ import annotations

import sqlite3

from mnist37_server.domain.records import TagRecord

SCHEMA = """
CREATE TABLE tags (
    name       TEXT PRIMARY KEY,
    version    INTEGER NOT NULL,
    run        INTEGER,                 -- that made the version, if one did
    tagged     REAL NOT NULL            -- seconds since 1970, by the clock of the wall
) WITHOUT ROWID;
"""
TAGS_MAX = 100


class TagTable:
    """The tags, all of them in memory too.

    Readers, in any thread, see the committed tags. All other methods are for the thread that
    commits; `end_transaction` shows its changes to readers.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._committed: dict[str, TagRecord] = {}

    def read(self) -> None:
        """Read the tags from the table."""
        rows = self._connection.execute("SELECT name, version, run, tagged FROM tags")
        self._tags = {row[0]: TagRecord(*row) for row in rows}
        self.end_transaction()

    def end_transaction(self) -> None:
        """Show the changes to readers; call it after the transaction is committed."""
        self._committed = self._tags.copy()

    def committed(self) -> dict[str, TagRecord]:
        """Return the committed tags by name. Thread-safe; the dictionary never changes."""
        return self._committed

    def __len__(self) -> int:
        return len(self._tags)

    def get(self, name: str) -> TagRecord | None:
        """Return a tag; None if there is none."""
        return self._tags.get(name)

    def points_into(self, run: int) -> bool:
        """Return whether a tag points to a version that a run made."""
        return any(tag.run == run for tag in self._tags.values())

    def set(self, tag: TagRecord) -> None:
        """Insert a tag, or move the tag of this name."""
        self._connection.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)", tag)
        self._tags[tag.name] = tag

    def delete(self, name: str) -> None:
        """Delete a tag."""
        self._connection.execute("DELETE FROM tags WHERE name = ?", (name,))
        del self._tags[name]
