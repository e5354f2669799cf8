"""The requests that are remembered by their request_id, and how a row of them is read.

Nothing here begins or ends a transaction: mnist37_server.storage.store does, around a whole commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from mnist37_server.domain.records import RequestRecord, RunCheckpoint
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

RETAINED_REQUESTS = 10_000
RETAINED_SECONDS = 24 * 3600
FORGET_INTERVAL = 64  # requests that are new; then the oldest are looked at
FORGET_BATCH = 256  # requests: more than come, so that one gets even


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

    def insert(self, records: Sequence[RequestRecord], now: float) -> None:
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
                (
                    r.request_id,
                    r.fingerprint,
                    r.version,
                    _json(r.result),
                    _json(_checkpoint_values(r)),
                    now,
                )
                for r in newest.values()
            ],
        )
        self._unforgotten += len(newest)
        if self._unforgotten < FORGET_INTERVAL:
            return
        self._unforgotten = 0
        # Only the oldest few are looked at: a day's requests may be millions.
        self._connection.execute(
            "DELETE FROM requests WHERE number < (SELECT min(number) FROM requests) + ?"
            " AND number <= (SELECT max(number) FROM requests) - ? AND committed < ?",
            (FORGET_BATCH, RETAINED_REQUESTS, now - RETAINED_SECONDS),
        )


def find_request(connection: sqlite3.Connection, request_id: str) -> RequestRecord | None:
    """Return what is remembered of a request."""
    row = connection.execute(
        "SELECT request_id, fingerprint, version, answer, place FROM requests WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None:
        return None
    answer = None if row[3] is None else tuple(json.loads(row[3]))
    checkpoint = None
    if row[4] is not None:
        steps, loss, elapsed, run, began = json.loads(row[4])
        checkpoint = RunCheckpoint(
            steps=steps, loss=loss, elapsed=elapsed, run=run, started_at=began
        )
    return RequestRecord(row[0], row[1], row[2], answer, checkpoint)


def _checkpoint_values(record: RequestRecord) -> tuple[float, ...] | None:
    checkpoint = record.checkpoint
    if checkpoint is None:
        return None
    return (
        checkpoint.steps,
        checkpoint.loss,
        checkpoint.elapsed,
        checkpoint.run,
        checkpoint.started_at,
    )


def _json(values: tuple[float, ...] | None) -> str | None:
    # Of finite numbers Python writes a list as JSON does; json.dumps takes three times as long.
    return None if values is None else str([*values])
