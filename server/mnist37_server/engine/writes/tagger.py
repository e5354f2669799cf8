"""The tagger: the thread that changes tags, while the writer's thread trains."""

from __future__ import annotations

import logging
import threading

from mnist37_server.domain.commands.commands import DeleteTag, TagVersion
from mnist37_server.domain.records import RequestRecord
from mnist37_server.domain.results import WriteResult, values_of
from mnist37_server.engine.writes.subscription import PendingWrite
from mnist37_server.engine.writes.write_queue import WriteQueue
from mnist37_server.errors import Refusal
from mnist37_server.storage.store import Store

log = logging.getLogger(__name__)


class Tagger:
    """The thread that executes the changes of tags, in the order of arrival, each exactly once.

    A tag is no part of the model: a change makes no version, and can be committed between two
    commits of a run.

    Args:
        queue: gives the changes, and takes their results.
        store: what commits go to.
    """

    def __init__(self, queue: WriteQueue, store: Store) -> None:
        self._queue = queue
        self._store = store
        self._thread = threading.Thread(target=self._work, name="tagger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the queue must be closed before."""
        self._thread.join()

    def _work(self) -> None:
        while writes := self._queue.take_tag_change():
            for write in writes:
                if not self._queue.refuse_if_unwanted(write):
                    self._execute(write)

    def _execute(self, write: PendingWrite) -> None:
        try:
            result = self._apply(write)
        except BaseException as error:
            if not isinstance(error, Refusal):
                log.error("the change of a tag failed", exc_info=error)
            self._queue.finish(write, error=error)
        else:
            self._queue.finish(write, result)

    def _apply(self, write: PendingWrite) -> WriteResult:
        change = write.request
        assert isinstance(change, TagVersion | DeleteTag)

        def make_record(version: int) -> RequestRecord | None:
            if write.request_id is None:
                return None
            values = values_of(WriteResult(version))
            return RequestRecord(write.request_id, write.fingerprint, version, values)

        return WriteResult(self._store.change_tag(change, make_record))
