"""The request records that are stored by request_id: the table and its queries."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from mnist37_server.domain.early_stopping import Baseline, BestEpoch
from mnist37_server.domain.records import RequestRecord, RunCheckpoint
from mnist37_server.storage.tables.id_filter import IdFilter

# The database stores the names of the columns and the order of the values in `answer` and `place`.
# They never change.
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
CLOCK_TOLERANCE_SECONDS = 60
FORGET_INTERVAL = 64  # requests: after so many inserts, the oldest records are deleted
# Requests: at most so many are deleted at a time. It is more than FORGET_INTERVAL, so that the
# deletion catches up with a backlog.
FORGET_BATCH = 256


class RequestLog:
    """The stored request records.

    Args:
        connection: the connection that the commits use.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._inserts_since_forget = 0  # requests
        ids = connection.execute("SELECT request_id FROM requests")
        self._ids = IdFilter(request_id for (request_id,) in ids)

    def may_hold(self, request_id: str) -> bool:
        """Return whether an id may be stored; False is certain. Runs no query; thread-safe."""
        return request_id in self._ids

    def insert(self, records: Sequence[RequestRecord], now: float) -> None:
        """Insert or update the records of requests, and delete the oldest ones.

        Args:
            records: the records; of several with one request_id, the last one is stored.
            now: the time of the commit, in seconds since 1970.
        """
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
        self._inserts_since_forget += len(newest)
        if self._inserts_since_forget < FORGET_INTERVAL:
            return
        self._inserts_since_forget = 0
        # A clock that was ahead for a while has left times in the future, after which nothing would
        # be deleted until they have come.
        self._connection.execute(
            "UPDATE requests SET committed = ? WHERE"
            " number < (SELECT min(number) FROM requests) + ? AND committed > ?",
            (now, FORGET_BATCH, now + CLOCK_TOLERANCE_SECONDS),
        )
        # The query examines only the oldest FORGET_BATCH numbers: a day may have millions of
        # requests.
        self._connection.execute(
            "DELETE FROM requests WHERE number < (SELECT min(number) FROM requests) + ?"
            " AND number <= (SELECT max(number) FROM requests) - ? AND committed < ?",
            (FORGET_BATCH, RETAINED_REQUESTS, now - RETAINED_SECONDS),
        )


def find_request(connection: sqlite3.Connection, request_id: str) -> RequestRecord | None:
    """Return the record of a request; None if there is none."""
    row = connection.execute(
        "SELECT request_id, fingerprint, version, answer, place FROM requests WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None:
        return None
    answer = None if row[3] is None else tuple(json.loads(row[3]))
    checkpoint = None
    if row[4] is not None:
        checkpoint = _checkpoint_from_values(json.loads(row[4]))
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
        *(checkpoint.best or ()),
        *(checkpoint.baseline or ()),
    )


def _checkpoint_from_values(values: Sequence[Any]) -> RunCheckpoint:
    """Return the checkpoint that has these stored values; an earlier release stored the first five.

    There is no baseline without a best epoch.
    """
    steps, loss, elapsed, run, began, *later = values
    best, baseline = later[:3], later[3:]
    return RunCheckpoint(
        steps=steps,
        loss=loss,
        elapsed=elapsed,
        run=run,
        started_at=began,
        best=BestEpoch(*best) if best else None,
        baseline=Baseline(*baseline) if baseline else None,
    )


def _json(values: tuple[float, ...] | None) -> str | None:
    # For finite numbers, str of a list is JSON; json.dumps takes three times as long.
    return None if values is None else str([*values])
