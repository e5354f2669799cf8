"""A look at a run: how it stands, its curve so far, and what comes of it from now on."""

from __future__ import annotations

from collections.abc import Iterator

from mnist37_server.domain.records import RunRecord
from mnist37_server.domain.results import Progress, progress_of
from mnist37_server.engine.write_queue import WriteQueue
from mnist37_server.errors import NotFound, Reason
from mnist37_server.storage.history import RETAINED_RUNS
from mnist37_server.storage.store import Store


class RunWatch:
    """One watcher of one run.

    Args:
        queue: knows whether the run is under way.
        store: what is committed of it.
        number: of the run; None for the newest.

    Raises:
        NotFound: it is not retained, or there is none yet.
    """

    def __init__(self, queue: WriteQueue, store: Store, number: int | None) -> None:
        self._queue = queue
        self._store = store
        if number is None:
            number, runs = queue.running_run(), store.runs()
            if number is None and not runs:
                raise NotFound("run: there is none yet; Train begins one")
            number = number or runs[0].number
        # First the subscription, then the look at what is committed: so nothing falls between.
        self._number = number
        self._subscription = queue.watch(number)
        self._seen = 0
        if self._subscription is None:
            self.record()

    def record(self) -> tuple[RunRecord, bool] | None:
        """How the run stands, and whether it is under way; None before its first commit.

        Raises:
            NotFound: it is not retained.
        """
        under_way = self._queue.running_run() == self._number
        matches = self._store.runs(self._number)
        if not matches and not under_way:
            raise NotFound(
                f"run: {self._number} is not retained; the newest {RETAINED_RUNS} are",
                Reason.RUN_NOT_RETAINED,
                run=self._number,
            )
        return (matches[0], under_way) if matches else None

    def curve(self) -> list[Progress]:
        """The epochs that are kept of it."""
        retained = self._store.curve(self._number)
        self._seen = retained[-1].epoch if retained else 0
        return retained

    def follow(self) -> Iterator[list[Progress]]:
        """Each further epoch, until the run ends or `close`; nothing where it has ended.

        Those that were committed together come together.
        """
        if self._subscription is not None:
            for results in self._subscription.coalesced():
                yield [at for at in progress_of(results) if at.epoch > self._seen]

    def close(self) -> None:
        """Ends `follow`."""
        if self._subscription is not None:
            self._queue.unwatch(self._subscription)
