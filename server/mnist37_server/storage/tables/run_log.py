"""The retained runs and their curves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mnist37_server.domain.records import RunRecord
from mnist37_server.domain.results import Progress, values_of
from mnist37_server.storage.tables.rows import pack_epochs, read_epochs, train_to_json
from mnist37_server.storage.tables.version_slots import VersionSlots

RETAINED_RUNS = 1_000  # the newest, and those in which a tag points to a version
RETAINED_CURVES = 100  # of the newest runs, and of those in which a tag points to a version
# Of each run's curve; once there are more, every second one is dropped. The first one stays, so a
# curve has 1,001 at most.
RETAINED_EPOCHS = 1_000


class RunLog:
    """The retained runs. The last and the best version of each of the newest ones is pinned.

    Readers, in any thread, see the committed best versions. All other methods are for the thread
    that commits; `end_transaction` shows its changes to readers.

    Args:
        connection: the connection that the commits use.
        versions: the versions to pin.
        is_tagged: returns whether a tag points to a version of the run with a number.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        versions: VersionSlots,
        is_tagged: Callable[[int], bool],
    ) -> None:
        self._connection = connection
        self._versions = versions
        self._is_tagged = is_tagged
        self._best: dict[int, int] = {}  # the best version of each of the newest runs

    def read(self) -> None:
        """Read the newest runs from the table."""
        (newest,) = self._connection.execute("SELECT max(number) FROM runs").fetchone()
        self._newest: int = newest or 0  # the number of the newest run
        rows = self._connection.execute(
            "SELECT number, version, best FROM runs WHERE number > ?",
            (self._newest - RETAINED_CURVES,),
        )
        # The last and the best version of each of the newest runs; None while no epoch has ended.
        self._pinned: dict[int, tuple[int, int | None]] = {
            number: (version, None if best is None else json.loads(best)[2])
            for number, version, best in rows
        }
        self.end_transaction()

    def end_transaction(self) -> None:
        """Show the changes to readers; call it after the transaction is committed."""
        self._best = {run: best for run, (_, best) in self._pinned.items() if best is not None}

    def best_versions(self) -> dict[int, int]:
        """Return the best version of each of the newest runs, by the run's number. Thread-safe."""
        return self._best

    def pinned_versions(self) -> Iterator[int]:
        """Yield each version that the runs pin, once for each pin."""
        for last, best in self._pinned.values():
            yield last
            if best is not None:
                yield best

    def next_run(self) -> int:
        """Return the number of the next run to begin."""
        return self._newest + 1

    def insert(self, runs: Sequence[tuple[RunRecord, Sequence[Progress]]]) -> set[int]:
        """Insert or update runs with their new epochs, and drop what is not retained any more.

        Args:
            runs: the state of each run, oldest first, with the epochs since its last commit.

        Returns:
            The versions that are now the best of one of the runs.
        """
        newest: dict[int, RunRecord] = {}
        for run, epochs in runs:
            if epochs:
                self._insert_epochs(run.number, epochs)
            earlier = newest.get(run.number)
            last = earlier.last if run.last is None and earlier else run.last
            newest[run.number] = replace(run, last=last)
        for run in newest.values():
            self._insert_run(run)
        return {run.best.version for run in newest.values() if run.best is not None}

    def drop_if_old(self, number: int) -> None:
        """Drop an old run, or its curve, if no tag points to one of its versions."""
        if self._is_tagged(number):
            return
        if number <= self._newest - RETAINED_CURVES:
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
        if number <= self._newest - RETAINED_RUNS:
            self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))

    def _insert_epochs(self, number: int, epochs: Sequence[Progress]) -> None:
        before, stride = epochs[0].epoch - 1, epoch_stride(epochs[-1].epoch)
        retained = [epoch for epoch in epochs if is_retained(epoch, stride)]
        if epoch_stride(before) != stride:
            earlier = read_epochs(self._connection, number)
            retained = [*(epoch for epoch in earlier if is_retained(epoch, stride)), *retained]
            self._connection.execute("DELETE FROM epochs WHERE run = ?", (number,))
        if retained:
            self._connection.execute(
                "INSERT INTO epochs VALUES (?, ?, ?)",
                (number, retained[-1].epoch, pack_epochs(retained)),
            )

    def _insert_run(self, run: RunRecord) -> None:
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET"
            " version = excluded.version, finished = excluded.finished,"
            " last = coalesce(excluded.last, last), best = coalesce(excluded.best, best)",
            (
                run.number,
                run.request_id,
                train_to_json(run.request),
                run.started_at,
                run.version,
                run.finished,
                None if run.last is None else json.dumps(values_of(run.last)),
                None if run.best is None else json.dumps(run.best),
            ),
        )
        self._set_pins(run.number, run.version, run.best.version if run.best else None)
        if run.number > self._newest:
            begun = range(self._newest + 1, run.number + 1)
            self._newest = run.number
            for number in begun:
                self._set_pins(number - RETAINED_CURVES, None, None)
                self.drop_if_old(number - RETAINED_CURVES)
                self.drop_if_old(number - RETAINED_RUNS)

    def _set_pins(self, number: int, last: int | None, best: int | None) -> None:
        """Pin the last and the best version of a run, and unpin its versions pinned before."""
        pinned = self._pinned.pop(number, (None, None))
        for version in (last, best):
            if version is not None:
                self._versions.pin(version)
        for version in pinned:
            if version is not None:
                self._versions.unpin(version)
        if last is not None:
            self._pinned[number] = last, best


def epoch_stride(epochs: int) -> int:
    """Return n for a run that has come so far: each n-th epoch of its curve is retained."""
    return 1 << (max(0, epochs - 1) // RETAINED_EPOCHS).bit_length()


def is_retained(progress: Progress, stride: int) -> bool:
    """Return whether an epoch is part of the curve. The last one is stored with the run."""
    return progress.epoch == 1 or progress.epoch % stride == 0
