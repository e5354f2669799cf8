"""The watch of a run: its record, its curve so far, and its further epochs."""

from __future__ import annotations

from collections.abc import Iterator

from mnist37_server.domain.records import RunRecord
from mnist37_server.domain.results import Progress, progress_of
from mnist37_server.engine.writes.write_queue import WriteQueue
from mnist37_server.errors import NotFound, Reason
from mnist37_server.storage.store import Store
from mnist37_server.storage.tables.run_log import RETAINED_RUNS


class RunWatch:
    """One watch of one run. It does not keep the run going.

    Use it in one thread, except `close`. Call `curve` before `follow`: `follow` leaves out the
    epochs that `curve` has returned.

    Args:
        queue: has the run under way.
        store: has what is committed of the runs.
        number: of the run; None for the newest.

    Raises:
        NotFound: the run is not retained, or there is no run yet.
    """

    def __init__(self, queue: WriteQueue, store: Store, number: int | None) -> None:
        self._queue = queue
        self._store = store
        if number is None:
            number, runs = queue.running_run(), store.runs()
            if number is None and not runs:
                raise NotFound("run: there is none yet; Train begins one")
            number = number or runs[0].number
        # The subscription comes before the first read of the store, so that no epoch is missed.
        self._number = number
        self._subscription = queue.watch(number)
        self._last_epoch = 0  # the last epoch that `curve` has returned
        if self._subscription is None:
            self.record()

    def record(self) -> tuple[RunRecord, bool] | None:
        """Return the run's record and whether it is under way; None before its first commit.

        Raises:
            NotFound: the run is not retained.
        """
        is_running = self._queue.running_run() == self._number
        runs = self._store.runs(self._number)  # one or none
        if not runs and not is_running:
            raise NotFound(
                f"run: {self._number} is not retained; the newest {RETAINED_RUNS:,} are",
                Reason.RUN_NOT_RETAINED,
                run=self._number,
            )
        return (runs[0], is_running) if runs else None

    def curve(self) -> list[Progress]:
        """Return the retained epochs of the run."""
        retained = self._store.curve(self._number)
        self._last_epoch = retained[-1].epoch if retained else 0
        return retained

    def follow(self) -> Iterator[list[Progress]]:
        """Yield the run's further epochs until it ends or `close` is called.

        Epochs that were committed together come in one list. If the run is not under way, there are
        none.
        """
        if self._subscription is not None:
            for results in self._subscription.coalesced():
                yield [p for p in progress_of(results) if p.epoch > self._last_epoch]

    def close(self) -> None:
        """End `follow`; any thread may call it."""
        if self._subscription is not None:
            self._queue.unwatch(self._subscription)
