"""The handle of a training run, for threads and scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import grpc
from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.progress import ProgressBuffer
from mnist37_client._rpc.retry import RetryPolicy
from mnist37_client._rpc.status import from_rpc
from mnist37_client.errors import Cancelled
from mnist37_client.results import Progress


class TrainingRun(Iterator[Progress]):
    """A training run that yields its progress after each epoch.

    The run stops when no caller follows it: after `cancel`, at the end of a `with` block, or when
    the program leaves the loop over `client.train(...)`. The model keeps what it learnt.
    """

    def __init__(
        self,
        begin: Callable[[], Iterator[pb.TrainResponse]],
        address: str,
        retry_policy: RetryPolicy,
    ) -> None:
        self._begin = begin
        self._address = address
        self._attempts = retry_policy.attempts()
        self._progress = ProgressBuffer()
        self._cancelled = False
        self._call = begin()

    def __next__(self) -> Progress:
        while self._cancelled or not self._progress.waiting:
            try:
                self._progress.add(next(self._call))
            except grpc.RpcError as error:
                if self._cancelled:
                    raise StopIteration from None
                time.sleep(self._attempts.next_pause(from_rpc(error, self._address)))
                if self._cancelled:
                    raise StopIteration from None
                self._call = self._begin()  # the request has an id, so the same run continues
                if self._cancelled:
                    self.cancel()
            else:
                self._attempts.record_success()
        return self._progress.waiting.popleft()

    def wait(self) -> Progress:
        """Follow the run to its end and return its last progress.

        Raises:
            Cancelled: the run was cancelled before its first epoch ended.
        """
        for _ in self:
            pass
        if self._progress.last is None:
            raise Cancelled("the run was cancelled before its first epoch ended")
        return self._progress.last

    def cancel(self) -> None:
        """Stop the run within some milliseconds; after its end, do nothing."""
        self._cancelled = True
        self._call.cancel()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()
