"""Commits what the writer has computed, while the writer computes on.

All that has gathered while one commit was under way goes into the next, as one transaction: so a
slow disk makes commits larger, not fewer answers. Answers and publication follow the commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnist37_server.history import RunRecord
from mnist37_server.journal import Journal
from mnist37_server.requests import Progress
from mnist37_server.snapshot import Snapshot
from mnist37_server.state import Record, State

log = logging.getLogger(__name__)

MAX_PENDING = 64  # updates that may be ahead of what is committed
COMMIT_SHARE = 0.05  # of the time that commits may take, while nobody waits for more than progress
MAX_REST = 0.5  # seconds between commits, however slow the disk is


@dataclass(frozen=True)
class Update:
    """What one or more writes, or an epoch of a run, changed."""

    snapshots: Sequence[Snapshot]
    records: Sequence[Record]
    run: tuple[RunRecord, Sequence[Progress]] | None
    committed: Callable[[], None]  # called once it is durable and published
    failed: Callable[[BaseException], None]  # called if it will never be
    urgent: bool  # whether somebody waits for it; nobody does for an epoch in the midst of a run


class Committer:
    """One thread that commits, in the order in which the updates came.

    When a commit fails, so does every update that was computed on top of it, until `settle`.

    Args:
        state: where commits go.
        newest: the newest version that is committed.
        publish: is given the newest snapshot of each commit, before anybody is answered.
        journal: is told of each commit.
    """

    def __init__(
        self,
        state: State,
        newest: Snapshot,
        publish: Callable[[Snapshot], None],
        journal: Journal,
    ) -> None:
        self._state = state
        self._journal = journal
        self._newest = newest
        self._publish = publish
        self._pending: deque[Update] = deque()
        self._busy = False
        self._error: BaseException | None = None
        self._settling = False
        self._closing = False
        self._rest_until = 0.0  # on time.monotonic's clock
        self._changed = threading.Condition()  # guards the seven above
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    def put(self, update: Update) -> bool:
        """Hands over an update; waits while the disk is far behind.

        Returns:
            Whether it will be committed, as far as is known; if not, its `failed` was called, and
            whoever computes must `settle` first.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._pending) < MAX_PENDING or self._error)
            error = self._error
            if error is None:
                self._pending.append(update)
                self._changed.notify_all()
                return True
        update.failed(error)
        return False

    def settle(self) -> Snapshot:
        """Waits until nothing is pending; returns what is committed, to compute on from."""
        with self._changed:
            self._settling = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending and not self._busy)
            self._settling = False
            self._error = None
            return self._newest

    @property
    def broken(self) -> bool:
        """Whether a commit failed, and nothing is committed until `settle`."""
        return self._error is not None

    def close(self) -> None:
        """Commits what is pending, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while updates := self._take():
            error = self._commit(updates)
            with self._changed:
                if error is not None:
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
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> list[Update]:
        """All that is pending; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(self._pressed, self._rest_until - time.monotonic())
            updates = list(self._pending)
            self._pending.clear()
            self._busy = bool(updates)
            self._changed.notify_all()
            return updates

    def _pressed(self) -> bool:
        """Whether to commit at once, and not when the rest since the last commit is over."""
        full = len(self._pending) >= MAX_PENDING
        urgent = any(update.urgent for update in self._pending)
        return full or urgent or self._settling or self._closing

    def _commit(self, updates: Sequence[Update]) -> BaseException | None:
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
        self._rest_until = ended + min((ended - began) / COMMIT_SHARE, MAX_REST)
        self._newest = snapshots[-1]
        self._journal.committed(self._newest, ended - began)
        self._publish(self._newest)
        return None
