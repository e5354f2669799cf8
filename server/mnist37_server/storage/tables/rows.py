"""The tables of versions, runs and epochs: the format of their rows, and the queries."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from struct import Struct

from mnist37.examples import PARAMETERS
from mnist37.optimizer import Sgd
from mnist37.schedule import Schedule, Shape
from mnist37_server.domain.commands.train import EarlyStopping, Train
from mnist37_server.domain.early_stopping import BestEpoch
from mnist37_server.domain.records import RunRecord, VersionRecord
from mnist37_server.domain.results import Progress, progress_from_values, values_of
from mnist37_server.domain.snapshot import Origin, Snapshot

VERSIONS = """
CREATE TABLE versions (
    slot       INTEGER PRIMARY KEY,     -- written over when none of its versions is kept any more
    about      BLOB NOT NULL,           -- ABOUT of versions that were committed together
    committed  REAL NOT NULL,           -- seconds since 1970, by the clock of the wall
    parameters BLOB NOT NULL            -- of each, 785 little-endian float32
);
"""
RUNS = """
CREATE TABLE runs (
    number     INTEGER PRIMARY KEY,
    request_id TEXT,
    request    TEXT NOT NULL,           -- JSON of a Train
    began      REAL NOT NULL,
    version    INTEGER NOT NULL,        -- of the model after the run's last commit
    finished   INTEGER NOT NULL,
    last       TEXT,                    -- JSON of the last epoch's Progress
    best       TEXT                     -- JSON of the BestEpoch so far
);
"""
EPOCHS = """
CREATE TABLE epochs (
    run        INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,        -- the last of those in the row
    progress   BLOB NOT NULL,           -- PROGRESS of epochs that were committed together
    PRIMARY KEY (run, epoch)
) WITHOUT ROWID;
"""
SCHEMA = VERSIONS + RUNS + EPOCHS
# A row holds several versions, or several epochs, that were committed together: to insert a row
# takes longer than to fill it.
# Metadata of a version: its number, the number of its run (0: none), batch cursor, origin.
ABOUT_STRUCT = Struct("<qqii")
# A SHA-256 of the metadata and the parameters follows the metadata.
DIGEST_BYTES = hashlib.sha256().digest_size
PROGRESS_STRUCT = Struct("<IIdddqd")  # an epoch: the first values of results.values_of
PROGRESS_VALUES = 7
VERSIONS_PER_ROW = 16  # at most; to read one version reads the whole row
PARAMETER_BYTES = 4 * PARAMETERS  # the parameters of one version
ORIGINS = frozenset(Origin)


def pack_versions(snapshots: Sequence[Snapshot], now: float) -> tuple[bytes, float, bytes]:
    """Return the columns of a row of versions that were committed together, without its slot.

    Args:
        snapshots: the versions.
        now: the time of the commit, in seconds since 1970.

    Returns:
        The columns `about`, `committed` and `parameters`.
    """
    about = []
    for snapshot in snapshots:
        head = ABOUT_STRUCT.pack(
            snapshot.version, snapshot.run or 0, snapshot.batch_cursor, snapshot.origin
        )
        about += [head, hashlib.sha256(head + snapshot.content).digest()]
    return b"".join(about), now, b"".join([snapshot.content for snapshot in snapshots])


def unpack_versions(about: bytes) -> Iterator[tuple[int, int | None, int, Origin, bytes]]:
    """Yield the metadata of each version in a row: number, run, batch cursor, origin, digest.

    Args:
        about: the column `about`.

    Raises:
        sqlite3.DatabaseError: the column is damaged.
    """
    size = ABOUT_STRUCT.size + DIGEST_BYTES
    if not about or len(about) % size:
        raise sqlite3.DatabaseError("a row of versions is damaged")
    for offset in range(0, len(about), size):
        version, run, batch_cursor, origin = ABOUT_STRUCT.unpack_from(about, offset)
        if origin not in ORIGINS:
            raise sqlite3.DatabaseError(f"what is known of version {version} is damaged")
        digest = about[offset + ABOUT_STRUCT.size : offset + size]
        yield version, run or None, batch_cursor, Origin(origin), digest


def read_snapshot(connection: sqlite3.Connection, slot: int, version: int) -> Snapshot | None:
    """Return a version from a slot; None if the slot no longer holds it.

    Raises:
        sqlite3.DatabaseError: the row is damaged.
    """
    row = connection.execute(
        "SELECT about, parameters FROM versions WHERE slot = ?", (slot,)
    ).fetchone()
    return None if row is None else find_snapshot(row[0], row[1], version)


def find_snapshot(about: bytes, parameters: bytes, version: int) -> Snapshot | None:
    """Return a version from the columns of a row; None if the row does not hold it.

    Raises:
        sqlite3.DatabaseError: the row is damaged.
    """
    for i, (number, run, batch_cursor, origin, digest) in enumerate(unpack_versions(about)):
        if number == version:
            content = parameters[i * PARAMETER_BYTES : (i + 1) * PARAMETER_BYTES]
            head = ABOUT_STRUCT.pack(version, run or 0, batch_cursor, origin)
            if len(content) != PARAMETER_BYTES or hashlib.sha256(head + content).digest() != digest:
                raise sqlite3.DatabaseError(f"the parameters of version {version} are damaged")
            return Snapshot(version, content, batch_cursor, origin, run)
    return None


def read_versions(
    connection: sqlite3.Connection, versions: Sequence[tuple[int, int]]
) -> list[VersionRecord]:
    """Return the records of versions, without their parameters.

    Args:
        connection: a connection to the database.
        versions: the number and the slot of each version.

    Returns:
        The records in the order of `versions`. A version that its slot no longer holds is left out.
    """
    records = {}
    for slot in {slot for _, slot in versions}:
        rows = connection.execute("SELECT about, committed FROM versions WHERE slot = ?", (slot,))
        for about, committed in rows:
            for version, run, _, origin, _ in unpack_versions(about):
                records[version] = VersionRecord(version, origin, run, committed)
    return [records[version] for version, _ in versions if version in records]


def read_runs(connection: sqlite3.Connection, number: int | None = None) -> list[RunRecord]:
    """Return the retained runs, newest first, or only the run of this number if it is retained."""
    where = "" if number is None else "WHERE number = ?"
    rows = connection.execute(
        "SELECT number, request_id, request, began, version, finished, last, best"
        f" FROM runs {where} ORDER BY number DESC",
        () if number is None else (number,),
    )
    return [
        RunRecord(
            number=number,
            request_id=request_id,
            request=train_from_json(request),
            started_at=began,
            version=version,
            finished=bool(finished),
            last=(
                None
                if last is None
                else progress_from_values(json.loads(last))._replace(run=number)
            ),
            best=None if best is None else BestEpoch(*json.loads(best)),
        )
        for number, request_id, request, began, version, finished, last, best in rows
    ]


def pack_epochs(epochs: Sequence[Progress]) -> bytes:
    """Return the column `progress` of a row of epochs that were committed together."""
    return b"".join([PROGRESS_STRUCT.pack(*values_of(epoch)[:PROGRESS_VALUES]) for epoch in epochs])


def train_to_json(train: Train) -> str:
    """Return the settings of a run as JSON, as stored; its keys never change."""
    stopping = train.early_stopping
    values = {
        "epochs": train.epochs,
        "learning_rate": train.sgd.learning_rate,
        "batch_size": train.batch_size,
        "seed": train.seed,
        "name": train.name,
        "schedule": train.schedule.shape.value,
        "final_learning_rate": train.schedule.final_rate,
        "warmup_epochs": train.schedule.warmup_epochs,
        "patience": None if stopping is None else stopping.patience,
        "min_delta": None if stopping is None else stopping.min_delta,
    }
    return json.dumps({name: value for name, value in values.items() if value is not None})


def train_from_json(stored: str) -> Train:
    """Return the settings of a run from the JSON of `train_to_json`."""
    values = json.loads(stored)
    return Train(
        epochs=values["epochs"],
        sgd=Sgd(values["learning_rate"]),
        batch_size=values["batch_size"],
        seed=values["seed"],
        name=values.get("name"),
        schedule=Schedule(
            Shape(values.get("schedule", Shape.CONSTANT.value)),
            values.get("final_learning_rate"),
            values.get("warmup_epochs", 0),
        ),
        early_stopping=(
            EarlyStopping(values["patience"], values["min_delta"]) if "patience" in values else None
        ),
    )


def read_curve(connection: sqlite3.Connection, number: int) -> list[Progress]:
    """Return the retained epochs of a run and its last one, in their order.

    Raises:
        sqlite3.DatabaseError: the curve is damaged.
    """
    curve = read_epochs(connection, number)
    for run in read_runs(connection, number):
        if run.last is not None:
            return [progress for progress in curve if progress.epoch < run.last.epoch] + [run.last]
    return curve


def read_epochs(connection: sqlite3.Connection, number: int) -> list[Progress]:
    """Return the epochs of a run in the table `epochs`, in their order.

    Raises:
        sqlite3.DatabaseError: the curve is damaged.
    """
    rows = connection.execute("SELECT progress FROM epochs WHERE run = ? ORDER BY epoch", (number,))
    try:
        return [
            progress_from_values((*values, number, 0, 0))
            for (packed_epochs,) in rows
            for values in PROGRESS_STRUCT.iter_unpack(packed_epochs)
        ]
    except struct.error as error:
        raise sqlite3.DatabaseError(f"the curve of run {number} is damaged") from error
