"""Takes over a database that an earlier release wrote, whole or not at all."""

from __future__ import annotations

import json
import sqlite3

from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.storage import rows as tables
from mnist37_server.storage.rows import PROGRESS_STRUCT, pack_versions

# A run's place had, third, the images that its loss is the sum of.
FROM_1 = "UPDATE requests SET place = json_remove(place, '$[2]') WHERE place IS NOT NULL"


def migrate(connection: sqlite3.Connection, found: int, wanted: int) -> None:
    """Brings a database from schema `found` to schema `wanted`, the newest, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if found == 1:
            connection.execute(FROM_1)
        _from_2(connection)
        connection.execute(f"PRAGMA user_version = {wanted}")
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise
        raise sqlite3.DatabaseError(f"its schema {found} cannot be taken over: {error}") from error


def _from_2(connection: sqlite3.Connection) -> None:
    """Versions and epochs had a row each; an epoch was JSON."""
    connection.execute("ALTER TABLE versions RENAME TO versions_2")
    connection.execute("ALTER TABLE epochs RENAME TO epochs_2")
    for table in (tables.VERSIONS, tables.EPOCHS):
        connection.execute(table)
    rows = connection.execute(
        "SELECT version, parameters, place, origin, run, committed, digest FROM versions_2"
        " ORDER BY version"
    )
    versions = []
    for version, parameters, place, origin, run, committed, digest in rows:
        made = Snapshot(version, parameters, place, Origin[origin.upper()], run)
        if made.digest != digest:
            raise sqlite3.DatabaseError(f"the parameters of version {version} are damaged")
        versions.append((made, committed))
    connection.executemany(
        "INSERT INTO versions VALUES (?, ?, ?, ?)",
        [
            (i, *pack_versions([snapshot], committed))
            for i, (snapshot, committed) in enumerate(versions, 1)
        ],
    )
    epochs = connection.execute("SELECT run, epoch, progress FROM epochs_2").fetchall()
    connection.executemany(
        "INSERT INTO epochs VALUES (?, ?, ?)",
        [
            (run, epoch, PROGRESS_STRUCT.pack(*json.loads(progress)))
            for run, epoch, progress in epochs
        ],
    )
    connection.execute("DROP TABLE versions_2")
    connection.execute("DROP TABLE epochs_2")
