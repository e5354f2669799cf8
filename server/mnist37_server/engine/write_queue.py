"""The writes that wait for their turn, and all who wait for their answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from mnist37.kernels import Flag
from mnist37_server.domain.commands import Request, Restore, Train
from mnist37_server.domain.records import RequestRecord
from mnist37_server.domain.results import Result, result_from_values
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.subscription import PendingWrite, Subscription
from mnist37_server.errors import AlreadyExists, CallerCancelled, Exhausted, ShuttingDown

PENDING_CALLERS_MAX = 256  # who may wait for a write at a time, unless it is told otherwise
EXCLUSIVE = (Train, Restore)  # they look at what is committed
GROUP_MAX = 64  # small writes that are taken together


class WriteQueue:
    """First come, first served; one request_id, one write.

    Args:
        find: looks up what is remembered of a request_id.
        stats: is told of each run and of each write that ends.
        max_callers: how many may wait at a time.
        delay: how long those who have just been answered are waited for.
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
        self._queue: deque[PendingWrite] = deque()
        self._by_request_id: dict[str, PendingWrite] = {}  # queued or under way, by request_id
        self._waiting: dict[Subscription, PendingWrite] = {}
        self._running: PendingWrite | None = None  # the run under way
        self.closing = False
        self._make_refusal = shutting_down_error  # once it is closing
        # Guards all from _queue on, and the delay's siblings; a look at one may do without.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # something to do: for the writer

    def submit(
        self,
        request: Request,
        request_id: str | None = None,
        caller: Subscription | None = None,
    ) -> Subscription:
        """Queues a write, joins the one that has this id, or repeats its first answer.

        Args:
            request: what to do.
            request_id: makes it safe to submit the request again.
            caller: who is to be answered, returned again; one without a deadline, if none is given.
                A write for which nobody waits any more is not begun.

        Raises:
            AlreadyExists: the id stands for another request.
            Exhausted: too many callers wait.
            ShuttingDown: no more writes are taken.
        """
        mark = request.fingerprint
        caller = caller or Subscription()
        with self._lock:
            write = None if request_id is None else self._by_request_id.get(request_id)
            # A write leaves _named after its commit, so an id that is in neither place is new.
            record = None if request_id is None or write else self._find_record(request_id)
            earlier = write or record
            if earlier is not None and earlier.fingerprint != mark:
                raise AlreadyExists(
                    f"request_id: {request_id!r} was used before with another method or other"
                    " values; nothing is applied",
                    request_id=request_id,
                )
            if record is not None and record.result is not None:
                caller.end(result_from_values(request, record.result))
                return caller
            if self.closing:
                raise self._make_refusal()
            if len(self._waiting) >= self._max_callers:
                raise Exhausted(
                    f"{self._max_callers} callers wait for writes already; try again later"
                )
            if caller.ended:  # it has left meanwhile
                return caller
            if write is None:
                write = PendingWrite(request, request_id, mark)
                self._queue.append(write)
                if len(self._queue) in (1, self._delay.siblings) or isinstance(request, EXCLUSIVE):
                    self._changed.notify()
                if request_id is not None:
                    self._by_request_id[request_id] = write
            write.callers.append(caller)
            self._waiting[caller] = write
            if write.stop is not None:
                self._update_stop_flag(write)
        return caller

    def cancel(self, caller: Subscription) -> None:
        """The caller waits no longer: it cancelled, or its deadline passed.

        When the last caller leaves, a write that has not begun is dropped, and a run stops.
        """
        if caller.ended:  # as nearly all have, by the time that grpcio calls this
            return
        caller.end(error=CallerCancelled("the caller left"))
        with self._lock:
            write = self._waiting.pop(caller, None)
            if write is not None:
                write.callers.remove(caller)
                self._update_stop_flag(write)
                if not write.callers and write in self._queue:
                    self._queue.remove(write)
                    self.finish(write)

    def depth(self) -> int:
        """How many writes wait for their turn."""
        return len(self._queue)

    def running_run(self) -> int | None:
        """The number of the run under way."""
        running = self._running
        return None if running is None else running.run

    def watch(self, run: int) -> Subscription | None:
        """The epochs of a run from now on; None if it is not under way."""
        with self._lock:
            if self._running is None or self._running.run != run:
                return None
            watcher = Subscription()
            self._running.watchers.append(watcher)
            return watcher

    def unwatch(self, watcher: Subscription) -> None:
        """Ends what `watch` began."""
        watcher.end()
        with self._lock:
            if self._running is not None and watcher in self._running.watchers:
                self._running.watchers.remove(watcher)

    def close(self, why: Callable[[], ShuttingDown] | None = None) -> None:
        """Takes no more writes; those that have not begun are refused, as all that come.

        Args:
            why: makes what they are refused with; by itself, that the server is shutting down.
        """
        with self._lock:
            self.closing = True
            self._make_refusal = why or shutting_down_error
            if self._running is not None:
                self._update_stop_flag(self._running)
            self._changed.notify()

    def take(self) -> list[PendingWrite] | None:
        """Waits for the next writes to do together: small ones, or one that has to be alone.

        Returns:
            None when the queue is closed.
        """
        with self._lock:
            while not self._await_siblings() and not self.closing:
                self._changed.wait()
            self._delay.siblings = 0
            if self.closing:
                while self._queue:
                    self.finish(self._queue.popleft(), error=self._make_refusal())
                return None
            writes: list[PendingWrite] = []
            while self._queue and len(writes) < GROUP_MAX:
                if isinstance(self._queue[0].request, EXCLUSIVE):
                    return writes or [self._queue.popleft()]
                writes.append(self._queue.popleft())
            return writes

    def _await_siblings(self) -> bool:
        """Waits for those who have just been answered, while one after the other comes back.

        Returns:
            Whether there is something to do.
        """
        before, since = 0, time.monotonic()
        while self._delay.expects_more(before, len(self._queue)) and not self._must_not_wait():
            before = len(self._queue)
            self._changed.wait(self._delay.remaining_seconds(since))
        return bool(self._queue)

    def _must_not_wait(self) -> bool:
        """Whether nobody is to be waited for: what has to be alone gains nothing by it."""
        return self.closing or any(isinstance(write.request, EXCLUSIVE) for write in self._queue)

    def begin_run(self, write: PendingWrite, run: int, stop: Flag) -> None:
        """From now on the run, of this number, can be watched, and `stop` says when it shall."""
        with self._lock:
            write.run, write.stop = run, stop
            self._running = write
            self._update_stop_flag(write)
            self._stats.record_run_start(write)

    def _update_stop_flag(self, write: PendingWrite) -> None:
        """Stops a run that is under way at its next step, if nobody waits for it."""
        if write.stop is not None:
            write.stop[0] = self.closing or not write.callers

    def publish_progress(self, write: PendingWrite, *results: Result) -> None:
        """Hands a run's committed progress to its callers and watchers."""
        with self._lock:
            if results:
                self._stats.record_results(results)
            for reader in write.callers + write.watchers:
                reader.put(*results)

    def is_unwanted(self, write: PendingWrite) -> bool:
        """Whether nobody waits for a write any more, or no more writes are done."""
        return self.closing or not write.has_callers

    def refuse_if_unwanted(self, write: PendingWrite) -> bool:
        """Ends a write that is unwanted; says whether it did.

        Under the lock: a caller who joins does so before, and the write goes on, or after, and it
        is another write.
        """
        if write.has_callers and not self.closing:
            return False
        with self._lock:
            if not self.is_unwanted(write):
                return False
            self.finish(write, error=self._make_refusal() if self.closing else no_caller_error())
            return True

    def finish_all(self, answered: Collection[tuple[PendingWrite, Result]]) -> None:
        """Finishes several writes, each with its one answer; `take` may wait for their next."""
        with self._lock:
            for write, result in answered:
                self.finish(write, result)
            self._delay.siblings = min(len(answered) + len(self._queue), GROUP_MAX)

    def finish(
        self, write: PendingWrite, *results: Result, error: BaseException | None = None
    ) -> None:
        """Gives the write's callers the last they will hear of it, and forgets it."""
        with self._lock:
            self._stats.record_end(write, results, error)
            if write.request_id is not None and self._by_request_id.get(write.request_id) is write:
                del self._by_request_id[write.request_id]
            if self._running is write:
                self._running = None
            for caller in write.callers:
                caller.end(*results, error=error)
                del self._waiting[caller]
            for watcher in write.watchers:
                watcher.end(*results)
            write.callers.clear()
            write.watchers.clear()


def shutting_down_error() -> ShuttingDown:
    """Why a write is refused or a run stopped, at the end."""
    return ShuttingDown("the server is shutting down; what was committed is kept")


def no_caller_error() -> CallerCancelled:
    """Why a write is not begun or a run stopped, when its callers have gone."""
    return CallerCancelled("nobody waited for it any more")
