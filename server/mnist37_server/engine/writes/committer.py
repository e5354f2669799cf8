"""The committer: stores what the writer has computed, then publishes it, then answers callers.

The order is the same for each batch. First the store commits it. Then the feed publishes its newest
snapshot. Then its callback answers the callers. So no read and no answer is ahead of the disk, and
a caller that has its answer can read its own write.

On a fast disk the writer's thread commits. On a slow disk the committer's own thread does, and the
writer computes on meanwhile. The batches that arrive during one commit go into the next one, as one
transaction: a slower disk makes commits larger, and hardly lowers the rate of answers.
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
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.storage.store import Store

log = logging.getLogger(__name__)

PENDING_VERSIONS_MAX = 512  # versions that may be ahead of what is committed
# While callers wait for nothing but a run's progress, the committer's thread rests between commits,
# so that they take no more than this share of the time.
COMMIT_SHARE = 0.05
REST_MAX_SECONDS = 0.5  # the longest rest, on a disk of any speed


@dataclass(frozen=True)
class CommitBatch:
    """The changes of a group of small writes, or of one slice of a run.

    A batch is committed whole or not at all. Several batches may share one transaction. One of the
    two callbacks is called, once.
    """

    snapshots: Sequence[Snapshot]  # oldest first, at least one
    records: Sequence[RequestRecord]
    run: tuple[RunRecord, Sequence[Progress]] | None  # with the epochs that are new
    on_committed: Callable[[], None]  # answers the callers; called after commit and publication
    on_failed: Callable[[BaseException], None]  # answers the callers if there is no commit


class Committer:
    """A committer of batches, in the order in which they come.

    When a commit fails, all batches that were computed on top of it fail too. From then on every
    batch fails, until the writer calls `drain` and goes on from the committed version.

    Only the writer's thread calls its methods; `close` is called after that thread has ended. At
    any time at most one thread commits: the writer's, or the committer's own.

    Args:
        store: what commits go to.
        feed: has the newest committed version, and publishes each new one.
        delay: gets the duration of each commit.
        stats: counts the commits.
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
        # guarded by lock, which the two conditions share: _pending, _is_committing, _error,
        # _is_urgent, _is_closing. The writer reads _error without it: only an error that it has
        # not seen yet can be missed, and the next batch then fails with it.
        lock = threading.Lock()
        self._pending: deque[CommitBatch] = deque()
        self._is_committing = False  # a thread commits batches or runs their callbacks
        self._error: BaseException | None = None  # of the commit that failed; None after `drain`
        self._is_urgent = False  # whether callers wait for a pending batch
        self._is_closing = False
        # Set by the thread that commits, read by the committer's: on time.monotonic's clock.
        self._rest_end_time = 0.0
        self._work_condition = threading.Condition(lock)  # the committer's thread waits for work
        self._idle_condition = threading.Condition(lock)  # the writer waits for commits
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    def enqueue(self, batch: CommitBatch, *, urgent: bool) -> bool:
        """Hand a batch to the committer's thread; wait while too many versions are pending.

        Args:
            batch: what to commit.
            urgent: whether callers wait for it. For epochs in the midst of a run, none does.

        Returns:
            True if the batch is pending; it may still fail. False if a commit before it failed:
            `on_failed` was called, and the writer must call `drain` before it computes on.
        """
        with self._idle_condition:
            self._idle_condition.wait_for(
                lambda: self._pending_versions() < PENDING_VERSIONS_MAX or self._error
            )
            error = self._error
            if error is None:
                self._pending.append(batch)
                self._is_urgent |= urgent
                if len(self._pending) == 1 or self._must_not_rest():
                    self._work_condition.notify()
                return True
        batch.on_failed(error)
        return False

    def commit(self, batch: CommitBatch, *, urgent: bool = True) -> bool:
        """Commit a batch after all pending ones: on this thread, or if the disk is slow, later.

        On a fast disk, to hand the batch to another thread takes longer than it saves, and one more
        running thread gets in the readers' way. On a slow disk the committer's thread commits, and
        the writer computes on meanwhile.

        Args:
            batch: what to commit.
            urgent: whether callers wait for it. For epochs in the midst of a run, none does.

        Returns:
            True if the batch is committed, or pending on a slow disk. False if it failed, or a
            commit before it: `on_failed` was called, and the writer must call `drain` before it
            computes on.
        """
        if self._delay.is_disk_slow:
            return self.enqueue(batch, urgent=urgent)
        with self._idle_condition:
            self._wait_until_idle()
            error = self._error
            self._is_committing = error is None
        if error is None:
            self._finish([batch], self._commit_batches([batch]))
        else:
            batch.on_failed(error)
        return not self.has_failed

    def drain(self) -> Snapshot:
        """Wait until no batch is pending, forget a failure, and return the committed version.

        The writer computes on from this version.
        """
        with self._idle_condition:
            self._wait_until_idle()
            self._error = None
            return self._feed.newest

    def _wait_until_idle(self) -> None:
        """Wait until no batch is pending and no thread commits; the lock is held."""
        if self._pending:
            self._is_urgent = True
            self._work_condition.notify()
        self._idle_condition.wait_for(lambda: not self._pending and not self._is_committing)

    @property
    def has_failed(self) -> bool:
        """Return whether a commit failed, so that every batch fails until `drain`."""
        return self._error is not None

    def close(self) -> None:
        """Commit the pending batches, and end the thread."""
        with self._work_condition:
            self._is_closing = True
            self._work_condition.notify()
        self._thread.join()

    def _work(self) -> None:
        while batches := self._take():
            self._finish(batches, self._commit_batches(batches))

    def _take(self) -> list[CommitBatch]:
        """Wait for batches and for the end of the rest; return all that are pending.

        The list is empty only when the committer is closed.
        """
        with self._work_condition:
            self._work_condition.wait_for(lambda: self._pending or self._is_closing)
            rest_seconds = self._rest_end_time - time.monotonic()
            self._work_condition.wait_for(self._must_not_rest, rest_seconds)
            batches = list(self._pending)
            self._pending.clear()
            self._is_urgent = False
            self._is_committing = bool(batches)
            self._idle_condition.notify()
            return batches

    def _must_not_rest(self) -> bool:
        """Return whether to commit now, before the rest ends; the lock is held."""
        return (
            self._is_urgent or self._is_closing or self._pending_versions() >= PENDING_VERSIONS_MAX
        )

    def _pending_versions(self) -> int:
        """Return how many versions are pending; the lock is held."""
        return sum(len(batch.snapshots) for batch in self._pending)

    def _finish(self, batches: list[CommitBatch], error: BaseException | None) -> None:
        """Call the callbacks of batches whose commit has ended, and become idle again.

        If the commit failed, the batches that arrived during it fail too: they were computed on top
        of it.
        """
        if error is not None:
            with self._idle_condition:
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
                log.exception("the callers of a write could not be answered")
        with self._idle_condition:
            self._is_committing = False
            self._idle_condition.notify()

    def _commit_batches(self, batches: Sequence[CommitBatch]) -> BaseException | None:
        """Commit batches as one transaction, and publish the newest version.

        Returns:
            None, or the error that the commit failed with; then nothing is published.
        """
        snapshots = [snapshot for batch in batches for snapshot in batch.snapshots]
        records = [record for batch in batches for record in batch.records]
        runs = [batch.run for batch in batches if batch.run is not None]
        start_time = time.monotonic()
        try:
            self._store.commit(snapshots, records, runs)
        except Exception as error:  # noqa: BLE001 - any error must reach the callers
            self._stats.record_commit_failure(error)
            return error
        end_time = time.monotonic()
        seconds = self._delay.commit_seconds = end_time - start_time
        self._rest_end_time = end_time + min(seconds / COMMIT_SHARE, REST_MAX_SECONDS)
        self._stats.record_commit(snapshots[-1], seconds)
        self._feed.publish(snapshots[-1])
        return None
