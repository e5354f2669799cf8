"""The batches of one `predict_stream`, without I/O: their requests, and their predictions.

A stream that fails may be begun again, at the owner or with another floor. So each batch is kept
until its answer has come.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike

from mnist37_client._rpc.messages.checks import decode
from mnist37_client._rpc.messages.requests import predict_request
from mnist37_client._rpc.messages.responses import parse_prediction
from mnist37_client._rpc.methods.exchanges import Exchanges, asks_owner
from mnist37_client._rpc.methods.session import Floor
from mnist37_client.errors import HistoryLost, InvalidResponse, Mnist37Error
from mnist37_client.images import to_images
from mnist37_client.results import Prediction


@dataclass
class _Batch:
    request: pb.PredictRequest
    count: int  # of images
    floor: Floor  # with which it was sent last


class SentBatches:
    """The batches, from the caller's images to the predictions, over one stream or several.

    gRPC takes the requests of a stream in another thread or task, which may still wait for the
    caller's next batch when its stream has failed. The next stream then sends that batch.

    Args:
        exchanges: of the client.
        batches: the caller's images.
    """

    def __init__(
        self, exchanges: Exchanges, batches: Iterator[ArrayLike] | AsyncIterator[ArrayLike]
    ) -> None:
        self._exchanges = exchanges
        self._attempts = exchanges.attempts()
        self._session = exchanges.session
        self.to_followers = self._reads_from_followers()
        self._batches = batches
        self._error: Exception | None = None  # why no further batch is sent
        self._are_all_taken = False
        # One stream takes a batch at a time, in either client.
        self._turn = threading.Lock()
        self._async_turn = asyncio.Lock()
        # guarded by _lock: _stream, _unanswered, _unsent
        self._lock = threading.Lock()
        self._stream = 0  # the number of the newest stream
        self._unanswered: deque[_Batch] = deque()
        self._unsent: deque[_Batch] = deque()  # taken by a stream that had failed

    def requests(self) -> Iterator[pb.PredictRequest]:
        """Return the requests of a new stream: the batches without an answer, then further ones."""
        return self._requests(*self._begin_stream())

    def requests_async(self) -> AsyncIterator[pb.PredictRequest]:
        """Return the requests of a new stream: the batches without an answer, then further ones."""
        return self._requests_async(*self._begin_stream())

    def parse(self, content: bytes) -> Prediction:
        """Return the prediction in the next answer.

        Raises:
            InvalidResponse: the answer fits no batch.
        """
        with self._lock:
            if not self._unanswered:
                raise InvalidResponse("the server sent more answers than it got batches")
            batch = self._unanswered.popleft()
        answer = decode(pb.PredictResponse, content)
        prediction = parse_prediction(answer, batch.count)
        self._session.record_read(batch.floor, answer.start, answer.version)
        self._attempts.record_success()
        return prediction

    def oldest_request(self) -> pb.PredictRequest | None:
        """Return the request of the first batch without an answer; None if each has one."""
        with self._lock:
            batch = self._unanswered[0] if self._unanswered else None
        return None if batch is None else self._with_floor(batch)

    def next_pause(self, error: Mnist37Error) -> float:
        """Return the seconds until a further stream may answer what one that failed did not.

        Raises:
            Mnist37Error: the error itself, if another stream would not help or the time is up.
        """
        if self.to_followers and self._exchanges.has_owner and asks_owner(error):
            self.to_followers = False
            return 0.0
        if isinstance(error, HistoryLost):
            with self._lock:
                floor = self._unanswered[0].floor if self._unanswered else self._session.floor
            if self._session.begin_anew(floor):
                raise error
            return 0.0
        pause = self._attempts.next_pause(error)
        self.to_followers = self._reads_from_followers()
        return pause

    def finish(self) -> None:
        """Raise what the caller's batches raised, or that answers are missing."""
        if self._error is not None:
            raise self._error
        if self._unanswered or not self._are_all_taken:
            raise InvalidResponse("the server ended the stream before it had answered each batch")

    def _reads_from_followers(self) -> bool:
        return self._exchanges.reads_from_followers(self._session.floor, fresh=False)

    def _begin_stream(self) -> tuple[int, list[_Batch]]:
        """Return the number of a new stream and the batches that it sends again."""
        with self._lock:
            self._stream += 1
            return self._stream, list(self._unanswered)

    def _requests(self, stream: int, again: list[_Batch]) -> Iterator[pb.PredictRequest]:
        for batch in again:
            yield self._with_floor(batch)
        while True:
            with self._turn:
                batch_or_none = self._take_unsent(stream) or self._take_next(stream)
            if batch_or_none is None:
                return
            yield self._with_floor(batch_or_none)

    async def _requests_async(
        self, stream: int, again: list[_Batch]
    ) -> AsyncIterator[pb.PredictRequest]:
        for batch in again:
            yield self._with_floor(batch)
        while True:
            async with self._async_turn:
                batch_or_none = self._take_unsent(stream) or await self._take_next_async(stream)
            if batch_or_none is None:
                return
            yield self._with_floor(batch_or_none)

    def _with_floor(self, batch: _Batch) -> pb.PredictRequest:
        batch.floor = self._session.floor
        batch.floor.put_into(batch.request)
        return batch.request

    def _take_unsent(self, stream: int) -> _Batch | None:
        with self._lock:
            if stream != self._stream or not self._unsent:
                return None
            batch = self._unsent.popleft()
            self._unanswered.append(batch)
            return batch

    def _take_next(self, stream: int) -> _Batch | None:
        """Return the caller's next batch; None if they have ended or failed, or the stream has."""
        if self._are_all_taken or stream != self._stream:
            return None
        assert isinstance(self._batches, Iterator)
        try:
            return self._add(stream, next(self._batches))
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - `finish` raises it, in the caller's thread
            self._error = error
        self._are_all_taken = True
        return None

    async def _take_next_async(self, stream: int) -> _Batch | None:
        """Return the caller's next batch; None if they have ended or failed, or the stream has."""
        if self._are_all_taken or stream != self._stream:
            return None
        if isinstance(self._batches, Iterator):
            return self._take_next(stream)
        try:
            return self._add(stream, await anext(self._batches))
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - `finish` raises it, in the caller's task
            self._error = error
        self._are_all_taken = True
        return None

    def _add(self, stream: int, images: ArrayLike) -> _Batch | None:
        """Return the batch of these images; None if the stream that took them has failed."""
        rows = to_images(images)
        batch = _Batch(predict_request(rows), len(rows), Floor())
        with self._lock:
            is_current = stream == self._stream
            (self._unanswered if is_current else self._unsent).append(batch)
        return batch if is_current else None
