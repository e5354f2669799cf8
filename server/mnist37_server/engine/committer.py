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

from mnist37_server.domain.records import RequestRecord, RunRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Snapshot
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import EngineStats
from mnist37_server.storage.store import Store

log = logging.getLogger(__name__)

PENDING_VERSIONS_MAX = 512  # versions that may be ahead of what is committed
COMMIT_SHARE = 0.05  # of the time that commits may take, while nobody waits for more than progress
REST_MAX_SECONDS = 0.5  # seconds between such commits, however slow the disk is


@dataclass(frozen=True)
class CommitBatch:
    """What one or more writes, or epochs of a run, changed."""

    snapshots: Sequence[Snapshot]
    records: Sequence[RequestRecord]
    run: tuple[RunRecord, Sequence[Progress]] | None
    on_committed: Callable[[], None]  # called once it is durable and published
    on_failed: Callable[[BaseException], None]  # called if it will never be


class Committer:
    """Commits in the order in which the updates came.

    When a commit fails, so does every update that was computed on top of it, until `settle`.

    Args:
        store: where commits go.
        feed: has the newest committed version; is given the newest of each commit, before anybody
            is answered.
        delay: is told how long commits take.
        stats: is told of each commit.
    """

    def __init__(
        self,
        store: Store,
        feed: SnapshotFeed,
        delay: CommitDelay,
        stats: EngineStats,
    ) -> None:
        self._store = store
        self._stats = stats
        self._feed = feed
        self._delay = delay
        self._pending: deque[CommitBatch] = deque()
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

    def enqueue(self, batch: CommitBatch, *, urgent: bool) -> bool:
        """Hands over an update; waits while the disk is far behind.

        Args:
            batch: to be committed by this committer's thread.
            urgent: whether somebody waits; nobody does for epochs in the midst of a run.

        Returns:
            Whether it will be committed, as far as is known; if not, its `failed` was called, and
            whoever computes must `settle` first.
        """
        with self._done:
            self._done.wait_for(
                lambda: self._pending_versions() < PENDING_VERSIONS_MAX or self._error
            )
            error = self._error
            if error is None:
                self._pending.append(batch)
                self._urgent |= urgent
                if len(self._pending) == 1 or self._must_not_rest():
                    self._arrived.notify()
                return True
        batch.on_failed(error)
        return False

    def commit(self, batch: CommitBatch, *, urgent: bool = True) -> bool:
        """Commits an update, after all that is pending.

        On the caller's own thread: a hand-over takes longer than it gains, and a thread more would
        be one more in the readers' way. Where the disk is slow, the caller shall compute on
        meanwhile.

        Args:
            batch: to be committed.
            urgent: whether somebody waits; nobody does for epochs in the midst of a run.

        Returns:
            As `put`.
        """
        if self._delay.is_disk_slow:
            return self.enqueue(batch, urgent=urgent)
        with self._done:
            self._wait_until_idle()
            error = self._error
            self._busy = error is None
        if error is None:
            self._finish([batch], self._commit_batches([batch]))
        else:
            batch.on_failed(error)
        return not self.has_failed

    def drain(self) -> Snapshot:
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
    def has_failed(self) -> bool:
        """Whether a commit failed, and nothing is committed until `settle`."""
        return self._error is not None

    def close(self) -> None:
        """Commits what is pending, and ends the thread."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        self._thread.join()

    def _work(self) -> None:
        while batches := self._take():
            self._finish(batches, self._commit_batches(batches))

    def _take(self) -> list[CommitBatch]:
        """All that is pending; nothing at the end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._pending or self._closing)
            self._arrived.wait_for(self._must_not_rest, self._rest_until - time.monotonic())
            batches = list(self._pending)
            self._pending.clear()
            self._urgent = False
            self._busy = bool(batches)
            self._done.notify()
            return batches

    def _must_not_rest(self) -> bool:
        """Whether to commit at once, and not when the rest since the last commit is over."""
        return self._urgent or self._closing or self._pending_versions() >= PENDING_VERSIONS_MAX

    def _pending_versions(self) -> int:
        """How many versions are pending."""
        return sum(len(batch.snapshots) for batch in self._pending)

    def _finish(self, batches: list[CommitBatch], error: BaseException | None) -> None:
        """Tells those who wait, and is idle again; an error is theirs too who came meanwhile."""
        if error is not None:
            with self._done:
                self._error = error
                batches += self._pending
                self._pending.clear()
        for batch in batches:
            try:
                if error is None:
                    batch.on_committed()
                else:
                    batch.on_failed(error)
            except Exception:
                log.exception("those who wait for an update could not be told")
        with self._done:
            self._busy = False
            self._done.notify()

    def _commit_batches(self, batches: Sequence[CommitBatch]) -> BaseException | None:
        """Returns what it failed with."""
        snapshots = [snapshot for batch in batches for snapshot in batch.snapshots]
        records = [record for batch in batches for record in batch.records]
        runs = [batch.run for batch in batches if batch.run is not None]
        began = time.monotonic()
        try:
            self._store.commit(snapshots, records, runs)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            self._stats.record_commit_failure(error)
            return error
        ended = time.monotonic()
        took = self._delay.commit_seconds = ended - began
        self._rest_until = ended + min(took / COMMIT_SHARE, REST_MAX_SECONDS)
        self._stats.record_commit(snapshots[-1], took)
        self._feed.publish(snapshots[-1])
        return None
