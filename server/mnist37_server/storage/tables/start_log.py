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


def insert_start(connection: sqlite3.Connection, start: Position) -> list[Position]:
    """Insert a start, drop those that are not retained, and return the rest, newest first."""
    connection.execute("INSERT INTO starts (start, version) VALUES (?, ?)", start)
    connection.execute(
        "DELETE FROM starts WHERE number <= (SELECT max(number) FROM starts) - ?",
        (RETAINED_STARTS,),
    )
    rows = connection.execute("SELECT start, version FROM starts ORDER BY number DESC")
    return [Position(*row) for row in rows]
