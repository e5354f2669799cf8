"""The tables of versions and runs: what a row holds, and how rows are read."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from struct import Struct

from mnist37.examples import PARAMETERS
from mnist37.optimizer import Sgd
from mnist37_server.domain.commands import Train
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
    last       TEXT                     -- JSON of the last epoch's Progress
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
# Rows hold several things that came together: to insert a row takes longer than to fill it.
ABOUT_STRUCT = Struct("<qqii")  # of a version: its number, the run's (0: none), place, origin
DIGEST_BYTES = hashlib.sha256().digest_size  # follows on it: of that and the parameters, SHA-256
PROGRESS_STRUCT = Struct("<IIdddqd")  # of an epoch, in the order of results.values_of
VERSIONS_PER_ROW = 16  # versions: so many are read to look at one
PARAMETER_BYTES = 4 * PARAMETERS  # of a version's parameters
ORIGINS = frozenset(Origin)


def pack_versions(snapshots: Sequence[Snapshot], now: float) -> tuple[bytes, float, bytes]:
    """The columns of a row of versions that were committed together, but for its slot."""
    about = []
    for snapshot in snapshots:
        head = ABOUT_STRUCT.pack(
            snapshot.version, snapshot.run or 0, snapshot.batch_cursor, snapshot.origin
        )
        about += [head, hashlib.sha256(head + snapshot.content).digest()]
    return b"".join(about), now, b"".join([snapshot.content for snapshot in snapshots])


def unpack_versions(about: bytes) -> Iterator[tuple[int, int | None, int, Origin, bytes]]:
    """What is known of each version in a row: number, run, place, origin, digest.

    Raises:
        sqlite3.DatabaseError: it is not what was stored.
    """
    size = ABOUT_STRUCT.size + DIGEST_BYTES
    if not about or len(about) % size:
        raise sqlite3.DatabaseError("a row of versions is damaged")
    for start in range(0, len(about), size):
        version, run, place, origin = ABOUT_STRUCT.unpack_from(about, start)
        if origin not in ORIGINS:
            raise sqlite3.DatabaseError(f"what is known of version {version} is damaged")
        digest = about[start + ABOUT_STRUCT.size : start + size]
        yield version, run or None, place, Origin(origin), digest


def read_snapshot(connection: sqlite3.Connection, slot: int, version: int) -> Snapshot | None:
    """A version that is in this slot; None where it no longer is.

    Raises:
        sqlite3.DatabaseError: what is there is not what was stored.
    """
    row = connection.execute(
        "SELECT about, parameters FROM versions WHERE slot = ?", (slot,)
    ).fetchone()
    if row is None:
        return None
    about, parameters = row
    for i, (there, run, place, origin, digest) in enumerate(unpack_versions(about)):
        if there == version:
            content = parameters[i * PARAMETER_BYTES : (i + 1) * PARAMETER_BYTES]
            head = ABOUT_STRUCT.pack(version, run or 0, place, origin)
            if len(content) != PARAMETER_BYTES or hashlib.sha256(head + content).digest() != digest:
                raise sqlite3.DatabaseError(f"the parameters of version {version} are damaged")
            return Snapshot(version, content, place, origin, run)
    return None


def read_versions(
    connection: sqlite3.Connection, wanted: Sequence[tuple[int, int]]
) -> list[VersionRecord]:
    """What is known of versions, each with the slot that it is in; newest first."""
    found = {}
    for slot in {slot for _, slot in wanted}:
        rows = connection.execute("SELECT about, committed FROM versions WHERE slot = ?", (slot,))
        for about, committed in rows:
            for version, run, _, origin, _ in unpack_versions(about):
                found[version] = VersionRecord(version, origin, run, committed)
    return [found[version] for version, _ in wanted if version in found]


def read_runs(connection: sqlite3.Connection, number: int | None = None) -> list[RunRecord]:
    """The runs that are kept, newest first; or the one of this number, if it is."""
    where = "" if number is None else "WHERE number = ?"
    rows = connection.execute(
        "SELECT number, request_id, request, began, version, finished, last"
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
            last=None if last is None else progress_from_values(json.loads(last)),
        )
        for number, request_id, request, began, version, finished, last in rows
    ]


def pack_epochs(epochs: Sequence[Progress]) -> bytes:
    """Return the column of a row of epochs that were committed together."""
    return b"".join([PROGRESS_STRUCT.pack(*values_of(epoch)) for epoch in epochs])


def train_to_json(train: Train) -> str:
    """Return the settings of a run as they are stored, by names that never change."""
    return json.dumps(
        {
            "epochs": train.epochs,
            "learning_rate": train.sgd.learning_rate,
            "batch_size": train.batch_size,
            "seed": train.seed,
        }
    )


def train_from_json(stored: str) -> Train:
    """Return the settings of a run that `train_to_json` made."""
    values = json.loads(stored)
    return Train(
        epochs=values["epochs"],
        sgd=Sgd(values["learning_rate"]),
        batch_size=values["batch_size"],
        seed=values["seed"],
    )


def read_curve(connection: sqlite3.Connection, number: int) -> list[Progress]:
    """The epochs that are kept of a run, in their order."""
    rows = connection.execute("SELECT progress FROM epochs WHERE run = ? ORDER BY epoch", (number,))
    try:
        return [
            progress_from_values(values)
            for (some,) in rows
            for values in PROGRESS_STRUCT.iter_unpack(some)
        ]
    except struct.error as error:
        raise sqlite3.DatabaseError(f"the curve of run {number} is damaged") from error
