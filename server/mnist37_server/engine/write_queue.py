"""The writes that wait for their turn, and all who wait for their answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from mnist37.kernels import Flag
from mnist37_server.domain.commands import Request, Restore, Train
from mnist37_server.domain.records import Record
from mnist37_server.domain.results import Answer, answer_to
from mnist37_server.engine.commit_delay import CommitDelay
from mnist37_server.engine.stats import Journal
from mnist37_server.engine.subscription import Subscription, Write
from mnist37_server.errors import AlreadyExists, CallerLeft, Exhausted, ShuttingDown

MAX_CALLERS = 256  # who may wait for a write at a time, unless it is told otherwise
ALONE = (Train, Restore)  # they look at what is committed
MAX_TOGETHER = 64  # small writes that are taken together


class WriteQueue:
    """First come, first served; one request_id, one write.

    Args:
        find: looks up what is remembered of a request_id.
        journal: is told of each run and of each write that ends.
        max_callers: how many may wait at a time.
        delay: how long those who have just been answered are waited for.
    """

    def __init__(
        self,
        find: Callable[[str], Record | None],
        journal: Journal,
        max_callers: int = MAX_CALLERS,
        delay: CommitDelay | None = None,
    ) -> None:
        self._find = find
        self._journal = journal
        self._max_callers = max_callers
        self._delay = delay or CommitDelay()
        self._queue: deque[Write] = deque()
        self._named: dict[str, Write] = {}  # queued or under way, by request_id
        self._waiting: dict[Subscription, Write] = {}
        self._running: Write | None = None  # the run under way
        self.closing = False
        self._why = shutting_down  # once it is closing
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
            write = None if request_id is None else self._named.get(request_id)
            # A write leaves _named after its commit, so an id that is in neither place is new.
            record = None if request_id is None or write else self._find(request_id)
            earlier = write or record
            if earlier is not None and earlier.fingerprint != mark:
                raise AlreadyExists(
                    f"request_id: {request_id!r} was used before with another method or other"
                    " values; nothing is applied",
                    request_id=request_id,
                )
            if record is not None and record.answer is not None:
                caller.end(answer_to(request, record.answer))
                return caller
            if self.closing:
                raise self._why()
            if len(self._waiting) >= self._max_callers:
                raise Exhausted(
                    f"{self._max_callers} callers wait for writes already; try again later"
                )
            if caller.ended:  # it has left meanwhile
                return caller
            if write is None:
                write = Write(request, request_id, mark)
                self._queue.append(write)
                if len(self._queue) in (1, self._delay.siblings) or isinstance(request, ALONE):
                    self._changed.notify()
                if request_id is not None:
                    self._named[request_id] = write
            write.callers.append(caller)
            self._waiting[caller] = write
            if write.stop is not None:
                self._steer(write)
        return caller

    def leave(self, caller: Subscription) -> None:
        """The caller waits no longer: it cancelled, or its deadline passed.

        When the last caller leaves, a write that has not begun is dropped, and a run stops.
        """
        if caller.ended:  # as nearly all have, by the time that grpcio calls this
            return
        caller.end(error=CallerLeft("the caller left"))
        with self._lock:
            write = self._waiting.pop(caller, None)
            if write is not None:
                write.callers.remove(caller)
                self._steer(write)
                if not write.callers and write in self._queue:
                    self._queue.remove(write)
                    self.finish(write)

    def depth(self) -> int:
        """How many writes wait for their turn."""
        return len(self._queue)

    def running(self) -> int | None:
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
            self._why = why or shutting_down
            if self._running is not None:
                self._steer(self._running)
            self._changed.notify()

    def take(self) -> list[Write] | None:
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
                    self.finish(self._queue.popleft(), error=self._why())
                return None
            writes: list[Write] = []
            while self._queue and len(writes) < MAX_TOGETHER:
                if isinstance(self._queue[0].request, ALONE):
                    return writes or [self._queue.popleft()]
                writes.append(self._queue.popleft())
            return writes

    def _await_siblings(self) -> bool:
        """Waits for those who have just been answered, while one after the other comes back.

        Returns:
            Whether there is something to do.
        """
        before, since = 0, time.monotonic()
        while self._delay.expects_more(before, len(self._queue)) and not self._pressed():
            before = len(self._queue)
            self._changed.wait(self._delay.seconds(since))
        return bool(self._queue)

    def _pressed(self) -> bool:
        """Whether nobody is to be waited for: what has to be alone gains nothing by it."""
        return self.closing or any(isinstance(write.request, ALONE) for write in self._queue)

    def begin_run(self, write: Write, run: int, stop: Flag) -> None:
        """From now on the run, of this number, can be watched, and `stop` says when it shall."""
        with self._lock:
            write.run, write.stop = run, stop
            self._running = write
            self._steer(write)
            self._journal.run_began(write)

    def _steer(self, write: Write) -> None:
        """Stops a run that is under way at its next step, if nobody waits for it."""
        if write.stop is not None:
            write.stop[0] = self.closing or not write.callers

    def tell(self, write: Write, *answers: Answer) -> None:
        """Hands a run's committed progress to its callers and watchers."""
        with self._lock:
            if answers:
                self._journal.reached(answers)
            for reader in write.callers + write.watchers:
                reader.put(*answers)

    def unwanted(self, write: Write) -> bool:
        """Whether nobody waits for a write any more, or no more writes are done."""
        return self.closing or not write.wanted

    def refuses(self, write: Write) -> bool:
        """Ends a write that is unwanted; says whether it did.

        Under the lock: a caller who joins does so before, and the write goes on, or after, and it
        is another write.
        """
        if write.wanted and not self.closing:
            return False
        with self._lock:
            if not self.unwanted(write):
                return False
            self.finish(write, error=self._why() if self.closing else nobody_waits())
            return True

    def finish_all(self, answered: Collection[tuple[Write, Answer]]) -> None:
        """Finishes several writes, each with its one answer; `take` may wait for their next."""
        with self._lock:
            for write, answer in answered:
                self.finish(write, answer)
            self._delay.siblings = min(len(answered) + len(self._queue), MAX_TOGETHER)

    def finish(self, write: Write, *answers: Answer, error: BaseException | None = None) -> None:
        """Gives the write's callers the last they will hear of it, and forgets it."""
        with self._lock:
            self._journal.ended(write, answers, error)
            if write.request_id is not None and self._named.get(write.request_id) is write:
                del self._named[write.request_id]
            if self._running is write:
                self._running = None
            for caller in write.callers:
                caller.end(*answers, error=error)
                del self._waiting[caller]
            for watcher in write.watchers:
                watcher.end(*answers)
            write.callers.clear()
            write.watchers.clear()


def shutting_down() -> ShuttingDown:
    """Why a write is refused or a run stopped, at the end."""
    return ShuttingDown("the server is shutting down; what was committed is kept")


def nobody_waits() -> CallerLeft:
    """Why a write is not begun or a run stopped, when its callers have gone."""
    return CallerLeft("nobody waited for it any more")
