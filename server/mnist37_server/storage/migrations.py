"""Migrate a database that an earlier release wrote, in one transaction."""

from __future__ import annotations

import json
import sqlite3

from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.storage.tables import rows as tables
from mnist37_server.storage.tables import start_log, tag_table
from mnist37_server.storage.tables.rows import PROGRESS_STRUCT, pack_versions

# In schema 1 the third value of `place` was the number of images that the loss was summed over.
MIGRATION_FROM_1 = "UPDATE requests SET place = json_remove(place, '$[2]') WHERE place IS NOT NULL"


def migrate(connection: sqlite3.Connection, from_schema: int, to_schema: int) -> None:
    """Migrate a database from an earlier schema to the newest one, in one transaction.

    Raises:
        sqlite3.DatabaseError: the database cannot be migrated; it is unchanged.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if from_schema == 1:
            connection.execute(MIGRATION_FROM_1)
        if from_schema <= 2:
            _migrate_from_2(connection)
        if from_schema <= 3:
            _migrate_from_3(connection)
        connection.execute(start_log.SCHEMA)  # schema 4 had no starts
        connection.execute(f"PRAGMA user_version = {to_schema}")
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise
        raise sqlite3.DatabaseError(
            f"its schema {from_schema} cannot be taken over: {error}"
        ) from error


def _migrate_from_3(connection: sqlite3.Connection) -> None:
    # Schema 3 had no tags, and did not store the best epoch of a run. Its version is hardly ever
    # retained any more; a run that goes on takes the best of its further epochs.
    connection.execute("ALTER TABLE runs ADD COLUMN best TEXT")
    connection.execute(tag_table.SCHEMA)


def _migrate_from_2(connection: sqlite3.Connection) -> None:
    # In schema 2 each version and each epoch had its own row, and an epoch was JSON.
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
        snapshot = Snapshot(version, parameters, place, Origin[origin.upper()], run)
        if snapshot.digest != digest:
            raise sqlite3.DatabaseError(f"the parameters of version {version} are damaged")
        versions.append((snapshot, committed))
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
