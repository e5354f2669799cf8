"""The starts of the server, each with the version at which it began."""

from __future__ import annotations

import sqlite3

from mnist37_server.domain.position import RETAINED_STARTS, Position

SCHEMA = """
CREATE TABLE starts (
    number     INTEGER PRIMARY KEY,     -- from 1
    start      INTEGER NOT NULL,        -- a random id
    version    INTEGER NOT NULL         -- the newest one when the start began
);
"""


class StartLog:
    """The retained starts. For the thread that commits.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._new: Position | None = None  # the present start, until it is committed

    def begin(self, start: Position) -> list[Position]:
        """Begin a start, which the next commit stores; return all retained ones, newest first."""
        self._new = start
        rows = self._connection.execute("SELECT start, version FROM starts ORDER BY number DESC")
        return [start, *(Position(*row) for row in rows)]

    def insert_new(self) -> None:
        """Insert the present start if it is not committed yet, and drop the oldest ones."""
        if self._new is None:
            return
        self._connection.execute("INSERT INTO starts (start, version) VALUES (?, ?)", self._new)
        self._connection.execute(
            "DELETE FROM starts WHERE number <= (SELECT max(number) FROM starts) - ?",
            (RETAINED_STARTS,),
        )

    def end_transaction(self) -> None:
        """Take note that the present start is committed."""
        self._new = None
