"""The requests that are remembered by their request_id, and how a row of them is read.

Nothing here begins or ends a transaction: mnist37_server.storage.store does, around a whole commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from mnist37_server.domain.records import Record, RunPlace
from mnist37_server.storage.id_filter import IdFilter

# The names of columns, and the order of values within answer and place, are stored: they stay.
SCHEMA = """
CREATE TABLE requests (
    number      INTEGER PRIMARY KEY,    -- in the order of their first commit
    request_id  TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL,          -- of the method and the values
    version     INTEGER NOT NULL,       -- of the model after its last commit
    answer      TEXT,                   -- JSON; NULL while a run is not finished
    place       TEXT,                   -- JSON; how far an unfinished run came
    committed   REAL NOT NULL           -- seconds since 1970, by the clock of the wall
);
"""

KEPT_REQUESTS = 10_000
KEPT_SECONDS = 24 * 3600
FORGET_EVERY = 64  # requests that are new; then the oldest are looked at
FORGOTTEN_AT_ONCE = 256  # requests: more than come, so that one gets even


class RequestLog:
    """What is remembered of requests.

    Args:
        connection: the writer's.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._unforgotten = 0  # requests that came since the oldest were looked at
        ids = connection.execute("SELECT request_id FROM requests")
        self._ids = IdFilter(known for (known,) in ids)

    def may_hold(self, request_id: str) -> bool:
        """Return whether an id may be remembered; without a query. Any thread may ask."""
        return request_id in self._ids

    def insert(self, records: Sequence[Record], now: float) -> None:
        """Add requests or what is new of them, and forget the oldest."""
        newest = {record.request_id: record for record in records}
        for request_id in newest:
            self._ids.add(request_id)
        self._connection.executemany(
            "INSERT INTO requests (request_id, fingerprint, version, answer, place, committed)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (request_id) DO UPDATE SET"
            " version = excluded.version, answer = excluded.answer, place = excluded.place,"
            " committed = excluded.committed",
            [
                (r.request_id, r.fingerprint, r.version, _json(r.answer), _json(_place(r)), now)
                for r in newest.values()
            ],
        )
        self._unforgotten += len(newest)
        if self._unforgotten < FORGET_EVERY:
            return
        self._unforgotten = 0
        # Only the oldest few are looked at: a day's requests may be millions.
        self._connection.execute(
            "DELETE FROM requests WHERE number < (SELECT min(number) FROM requests) + ?"
            " AND number <= (SELECT max(number) FROM requests) - ? AND committed < ?",
            (FORGOTTEN_AT_ONCE, KEPT_REQUESTS, now - KEPT_SECONDS),
        )


def find(connection: sqlite3.Connection, request_id: str) -> Record | None:
    """Return what is remembered of a request."""
    row = connection.execute(
        "SELECT request_id, fingerprint, version, answer, place FROM requests WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None:
        return None
    answer = None if row[3] is None else tuple(json.loads(row[3]))
    place = None
    if row[4] is not None:
        steps, loss, elapsed, run, began = json.loads(row[4])
        place = RunPlace(steps=steps, loss=loss, elapsed=elapsed, run=run, started_at=began)
    return Record(row[0], row[1], row[2], answer, place)


def _place(record: Record) -> tuple[float, ...] | None:
    place = record.place
    if place is None:
        return None
    return place.steps, place.loss, place.elapsed, place.run, place.started_at


def _json(values: tuple[float, ...] | None) -> str | None:
    # Of finite numbers Python writes a list as JSON does; json.dumps takes three times as long.
    return None if values is None else str([*values])
