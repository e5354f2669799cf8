"""Commits what the writer has computed: on its own thread, or where the disk is slow beside it.

There all that has gathered while one commit was under way goes into the next, as one transaction:
so a slow disk makes commits larger, not fewer answers. Answers and publication follow the commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnist37_server.domain.records import Record, RunRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import Journal
from mnist37_server.storage.store import State

log = logging.getLogger(__name__)

MAX_PENDING = 512  # versions that may be ahead of what is committed
COMMIT_SHARE = 0.05  # of the time that commits may take, while nobody waits for more than progress
MAX_REST = 0.5  # seconds between such commits, however slow the disk is


@dataclass(frozen=True)
class Update:
    """What one or more writes, or epochs of a run, changed."""

    snapshots: Sequence[Snapshot]
    records: Sequence[Record]
    run: tuple[RunRecord, Sequence[Progress]] | None
    committed: Callable[[], None]  # called once it is durable and published
    failed: Callable[[BaseException], None]  # called if it will never be


class Committer:
    """Commits in the order in which the updates came.

    When a commit fails, so does every update that was computed on top of it, until `settle`.

    Args:
        state: where commits go.
        feed: has the newest committed version; is given the newest of each commit, before anybody
            is answered.
        delay: is told how long commits take.
        journal: is told of each commit.
    """

    def __init__(
        self,
        state: State,
        feed: SnapshotFeed,
        delay: CommitDelay,
        journal: Journal,
    ) -> None:
        self._state = state
        self._journal = journal
        self._feed = feed
        self._delay = delay
        self._pending: deque[Update] = deque()
        self._busy = False
        self._error: BaseException | None = None
        self._urgent = False  # whether somebody waits for what is pending
        self._closing = False
        self._rest_until = 0.0  # on time.monotonic's clock
        lock = threading.Lock()  # guards all from _pending on
        self._arrived = threading.Condition(lock)  # something to commit: for this thread
        self._done = threading.Condition(lock)  # something is taken or committed: for the writer
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    def put(self, update: Update, *, urgent: bool) -> bool:
        """Hands over an update; waits while the disk is far behind.

        Args:
            update: to be committed by this committer's thread.
            urgent: whether somebody waits; nobody does for epochs in the midst of a run.

        Returns:
            Whether it will be committed, as far as is known; if not, its `failed` was called, and
            whoever computes must `settle` first.
        """
        with self._done:
            self._done.wait_for(lambda: self._behind() < MAX_PENDING or self._error)
            error = self._error
            if error is None:
                self._pending.append(update)
                self._urgent |= urgent
                if len(self._pending) == 1 or self._pressed():
                    self._arrived.notify()
                return True
        update.failed(error)
        return False

    def commit(self, update: Update, *, urgent: bool = True) -> bool:
        """Commits an update, after all that is pending.

        On the caller's own thread: a hand-over takes longer than it gains, and a thread more would
        be one more in the readers' way. Where the disk is slow, the caller shall compute on
        meanwhile.

        Args:
            update: to be committed.
            urgent: whether somebody waits; nobody does for epochs in the midst of a run.

        Returns:
            As `put`.
        """
        if self._delay.is_disk_slow:
            return self.put(update, urgent=urgent)
        with self._done:
            self._wait_until_idle()
            error = self._error
            self._busy = error is None
        if error is None:
            self._finish([update], self._store([update]))
        else:
            update.failed(error)
        return not self.broken

    def settle(self) -> Snapshot:
        """Waits until nothing is pending; returns what is committed, to compute on from."""
        with self._done:
            self._wait_until_idle()
            self._error = None
            return self._feed.newest

    def _wait_until_idle(self) -> None:
        if self._pending:
            self._urgent = True
            self._arrived.notify()
        self._done.wait_for(lambda: not self._pending and not self._busy)

    @property
    def broken(self) -> bool:
        """Whether a commit failed, and nothing is committed until `settle`."""
        return self._error is not None

    def close(self) -> None:
        """Commits what is pending, and ends the thread."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        self._thread.join()

    def _work(self) -> None:
        while updates := self._take():
            self._finish(updates, self._store(updates))

    def _take(self) -> list[Update]:
        """All that is pending; nothing at the end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._pending or self._closing)
            self._arrived.wait_for(self._pressed, self._rest_until - time.monotonic())
            updates = list(self._pending)
            self._pending.clear()
            self._urgent = False
            self._busy = bool(updates)
            self._done.notify()
            return updates

    def _pressed(self) -> bool:
        """Whether to commit at once, and not when the rest since the last commit is over."""
        return self._urgent or self._closing or self._behind() >= MAX_PENDING

    def _behind(self) -> int:
        """How many versions are pending."""
        return sum(len(update.snapshots) for update in self._pending)

    def _finish(self, updates: list[Update], error: BaseException | None) -> None:
        """Tells those who wait, and is idle again; an error is theirs too who came meanwhile."""
        if error is not None:
            with self._done:
                self._error = error
                updates += self._pending
                self._pending.clear()
        for update in updates:
            try:
                if error is None:
                    update.committed()
                else:
                    update.failed(error)
            except Exception:
                log.exception("those who wait for an update could not be told")
        with self._done:
            self._busy = False
            self._done.notify()

    def _store(self, updates: Sequence[Update]) -> BaseException | None:
        """Returns what it failed with."""
        snapshots = [snapshot for update in updates for snapshot in update.snapshots]
        records = [record for update in updates for record in update.records]
        runs = [update.run for update in updates if update.run is not None]
        began = time.monotonic()
        try:
            self._state.commit(snapshots, records, runs)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._journal.commit_failed(error)
            return error
        ended = time.monotonic()
        took = self._delay.commit_seconds = ended - began
        self._rest_until = ended + min(took / COMMIT_SHARE, MAX_REST)
        self._journal.committed(snapshots[-1], took)
        self._feed.publish(snapshots[-1])
        return None
