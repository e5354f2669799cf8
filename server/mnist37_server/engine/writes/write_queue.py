"""The queues of pending writes, and the callers that wait for their results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from mnist37.kernels import Flag
from mnist37_server.domain.commands.commands import DeleteTag, Request, TagVersion
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.records import QueuedRun, RequestRecord
from mnist37_server.domain.results import Result, result_from_values
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.commit_delay import CommitDelay
from mnist37_server.engine.writes.lanes import GROUP_MAX, GroupLane, Lane
from mnist37_server.engine.writes.subscription import PendingWrite, Subscription
from mnist37_server.errors import (
    CallerCancelled,
    Exhausted,
    ShuttingDown,
    no_caller_error,
    request_id_reused,
    shutting_down_error,
)

PENDING_CALLERS_MAX = 256  # callers that may wait for writes at a time, by default


class WriteQueue:
    """A first-in, first-out queue of writes, with one write for each request_id.

    The changes of tags have a queue of their own, since they do not wait for the other writes.

    Callers `submit` writes from any thread. The writer's thread calls `take`, computes, and has the
    results committed and published; the tagger's thread calls `take_tag_change`. Only then
    `finish`, `finish_all` or `publish_progress` answers the callers. A write keeps its request_id
    here until it is committed and finished, so a repeated request always finds the pending write or
    the stored record.

    Args:
        find: returns the stored record of a request_id.
        stats: counts the runs and the writes that end.
        max_callers: how many callers may wait at a time.
        delay: the policy for waiting until more writes come.
    """

    def __init__(
        self,
        find: Callable[[str], RequestRecord | None],
        stats: EngineStats,
        max_callers: int = PENDING_CALLERS_MAX,
        delay: CommitDelay | None = None,
    ) -> None:
        self._find_record = find
        self._stats = stats
        self._max_callers = max_callers
        self._delay = delay or CommitDelay()
        # guarded by _lock: all fields below, the callers and watchers of each write, and the
        # delay's siblings. A method that only reads one of them may do without the lock. Nothing
        # under the lock may wait for a disk or a log: grpcio's serving thread takes it in `cancel`.
        self._lock = threading.RLock()
        self._writes = GroupLane(self._lock, self._delay)
        self._tag_changes = Lane(self._lock)
        self._by_request_id: dict[str, PendingWrite] = {}  # queued or under way
        self._waiting: dict[Subscription, PendingWrite] = {}  # callers, not watchers
        self._running: PendingWrite | None = None  # the run under way
        self._finished_count = 0  # of writes that had a request_id
        self.closing = False
        self._make_refusal = shutting_down_error  # makes the error for writes after `close`

    def submit(
        self, request: Request, request_id: str | None = None, caller: Subscription | None = None
    ) -> Subscription:
        """Queue a write, join the pending write that has this request_id, or repeat its result.

        Args:
            request: the write.
            request_id: makes it safe to submit the request again.
            caller: the subscription for the results; None makes one without a deadline. A write
                that has no waiting caller when its turn comes is dropped.

        Returns:
            The subscription.

        Raises:
            AlreadyExists: the request_id belongs to another request.
            Exhausted: too many callers wait.
            ShuttingDown: the queue is closed.
        """
        caller = caller or Subscription()
        while not self._try_submit(request, request_id, caller) and caller.is_waiting:
            pass
        return caller

    def _try_submit(self, request: Request, request_id: str | None, caller: Subscription) -> bool:
        """Submit, or return False if the record must be looked up again.

        The look-up may wait for the disk, so it comes before the lock. A write that finishes in
        between may be the one with this request_id.
        """
        fingerprint = request.fingerprint
        finished_count = self._finished_count
        record = None if request_id is None else self._find_record(request_id)
        with self._lock:
            write = None if request_id is None else self._by_request_id.get(request_id)
            # A write leaves _by_request_id only after its commit, so a request_id that is neither
            # there nor in the store is new.
            is_settled = request_id is None or (record is not None and record.result is not None)
            if write is None and not is_settled and finished_count != self._finished_count:
                return False
            earlier = write or record
            if earlier is not None and earlier.fingerprint != fingerprint:
                raise request_id_reused(request_id)
            if write is None and record is not None and record.result is not None:
                caller.end(result_from_values(request, record.result))
                return True
            if self.closing:
                raise self._make_refusal()
            if len(self._waiting) >= self._max_callers:
                waiting = f"{self._max_callers} callers wait for writes already"
                raise Exhausted(f"{waiting}; try again later")
            if caller.has_ended:  # it has cancelled meanwhile
                return True
            if write is None:
                write = PendingWrite(request, request_id, fingerprint)
                self._lane_of(write).append(write)
                if request_id is not None:
                    self._by_request_id[request_id] = write
            write.callers.append(caller)
            self._waiting[caller] = write
            if write.stop is not None:
                self._update_stop_flag(write)
        return True

    def _lane_of(self, write: PendingWrite) -> Lane:
        is_tag_change = isinstance(write.request, TagVersion | DeleteTag)
        return self._tag_changes if is_tag_change else self._writes

    def cancel(self, caller: Subscription) -> None:
        """End the wait of a caller that has cancelled or whose deadline has passed.

        Without its last caller, a write that has not started is dropped, and a run stops.
        """
        if caller.has_ended:  # true for nearly all: grpcio calls this at the end of every call
            return
        caller.end(error=CallerCancelled("the caller left"))
        with self._lock:
            write = self._waiting.pop(caller, None)
            if write is not None:
                write.callers.remove(caller)
                self._update_stop_flag(write)
                waiting = self._lane_of(write).writes
                if not write.callers and write in waiting:
                    waiting.remove(write)
                    self.finish(write)

    def depth(self) -> int:
        """Return how many writes are in the queue."""
        return len(self._writes.writes)

    def queued_runs(self) -> list[QueuedRun]:
        """Return the runs that wait for their turn, the next one first."""
        with self._lock:
            ahead = 0 if self._running is None else 1
            return [
                QueuedRun(ahead + index, write.request_id, write.request)
                for index, write in enumerate(self._writes.writes)
                if isinstance(write.request, Train)
            ]

    def running_run(self) -> int | None:
        """Return the number of the run under way; None if there is none."""
        running = self._running
        return None if running is None else running.run

    def watch(self, run: int) -> Subscription | None:
        """Return a subscription to a run's further epochs; None if the run is not under way."""
        with self._lock:
            if self._running is None or self._running.run != run:
                return None
            watcher = Subscription()
            self._running.watchers.append(watcher)
            return watcher

    def unwatch(self, watcher: Subscription) -> None:
        """End a subscription that `watch` returned."""
        watcher.end()
        with self._lock:
            if self._running is not None and watcher in self._running.watchers:
                self._running.watchers.remove(watcher)

    def close(self, make_refusal: Callable[[], ShuttingDown] | None = None) -> None:
        """Refuse all writes that have not started and all later ones, and stop a run.

        Args:
            make_refusal: makes the error for them; by default, the server is shutting down.
        """
        with self._lock:
            self.closing = True
            self._make_refusal = make_refusal or shutting_down_error
            if self._running is not None:
                self._update_stop_flag(self._running)
            self._writes.close()
            self._tag_changes.close()

    def take(self) -> list[PendingWrite]:
        """Wait for the next writes and remove them from the queue; for the writer's thread.

        Returns:
            Up to GROUP_MAX small writes, or one EXCLUSIVE write; none when the queue is closed.
        """
        return self._take_from(self._writes)

    def take_tag_change(self) -> list[PendingWrite]:
        """Wait for the next change of a tag and remove it from the queue, alone in its list."""
        return self._take_from(self._tag_changes)

    def _take_from(self, lane: Lane) -> list[PendingWrite]:
        with self._lock:
            writes = lane.take()
            while lane.is_closed and lane.writes:
                self.finish(lane.writes.popleft(), error=self._make_refusal())
            return writes

    def begin_run(self, write: PendingWrite, run: int, stop: Flag) -> None:
        """Mark a write as the run under way, which callers can watch and stop.

        Args:
            write: the Train.
            run: the number of the run.
            stop: the run's stop flag, which the queue sets and clears from now on.
        """
        with self._lock:
            write.run, write.stop = run, stop
            self._running = write
            self._update_stop_flag(write)
            self._stats.record_run_start(write)

    def _update_stop_flag(self, write: PendingWrite) -> None:
        """Set a run's stop flag if it has no callers or the queue is closed, and else clear it."""
        if write.stop is not None:
            write.stop[0] = self.closing or not write.callers

    def publish_progress(self, write: PendingWrite, *results: Result) -> None:
        """Give a run's progress, committed and published, to its callers and watchers."""
        with self._lock:
            if results:
                self._stats.record_results(results)
            for reader in write.callers + write.watchers:
                reader.put(*results)

    def is_unwanted(self, write: PendingWrite) -> bool:
        """Return whether a write has no waiting caller, or the queue is closed."""
        return self.closing or not write.has_callers

    def refuse_if_unwanted(self, write: PendingWrite) -> bool:
        """Refuse a write that has no waiting caller, or any write of a closed queue.

        Return whether it was refused. The lock makes it one step: a caller that joins before keeps
        the write going, and one that comes later submits a new write.
        """
        if write.has_callers and not self.closing:
            return False
        with self._lock:
            if not self.is_unwanted(write):
                return False
            self.finish(write, error=self._make_refusal() if self.closing else no_caller_error())
            return True

    def finish_all(self, results: Collection[tuple[PendingWrite, Result]]) -> None:
        """Finish committed writes, each with its one result; `take` may wait for as many again."""
        with self._lock:
            for write, result in results:
                self.finish(write, result)
            self._delay.siblings = min(len(results) + len(self._writes.writes), GROUP_MAX)

    def finish(
        self, write: PendingWrite, *results: Result, error: BaseException | None = None
    ) -> None:
        """Give a write's last results or its error to its callers, and forget the write.

        Results must be committed and published before.
        """
        with self._lock:
            self._stats.record_end(write, results, error)
            if write.request_id is not None and self._by_request_id.get(write.request_id) is write:
                del self._by_request_id[write.request_id]
                self._finished_count += 1
            if self._running is write:
                self._running = None
            for caller in write.callers:
                caller.end(*results, error=error)
                del self._waiting[caller]
            for watcher in write.watchers:
                watcher.end(*results)
            write.callers.clear()
            write.watchers.clear()
