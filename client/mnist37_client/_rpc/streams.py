"""The streams of PredictStream and WatchRun, without I/O: their requests, and their results."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike

from mnist37_client._rpc.checks import decode, invalid
from mnist37_client._rpc.requests import predict_request
from mnist37_client._rpc.responses import parse_epochs, parse_prediction, parse_run
from mnist37_client.errors import InvalidInput, InvalidResponse
from mnist37_client.images import to_images
from mnist37_client.results import Prediction, Progress, Run


class SentBatches:
    """The batches of one PredictStream, from the caller's images to the predictions."""

    def __init__(self) -> None:
        self._counts: deque[int] = deque()  # of the images of each batch without an answer
        self._error: Exception | None = None  # why no further batch is sent
        self._are_all_sent = False

    def requests(self, batches: Iterator[ArrayLike]) -> Iterator[pb.PredictRequest]:
        """Yield a request for each batch until the batches end or fail."""
        try:
            for images in batches:
                yield self._request(images)
        except Exception as error:  # noqa: BLE001 - `finish` raises it, in the caller's thread
            self._error = error
        self._are_all_sent = True

    async def requests_async(
        self, batches: Iterator[ArrayLike] | AsyncIterator[ArrayLike]
    ) -> AsyncIterator[pb.PredictRequest]:
        """Yield a request for each batch until the batches end or fail."""
        try:
            if isinstance(batches, AsyncIterator):
                async for images in batches:
                    yield self._request(images)
            else:
                for images in batches:
                    yield self._request(images)
        except Exception as error:  # noqa: BLE001 - `finish` raises it, in the caller's task
            self._error = error
        self._are_all_sent = True

    def parse(self, content: bytes) -> Prediction:
        """Return the prediction in the next answer.

        Raises:
            InvalidResponse: the answer fits no batch.
        """
        if not self._counts:
            raise InvalidResponse("the server sent more answers than it got batches")
        return parse_prediction(content, self._counts.popleft())

    def finish(self) -> None:
        """Raise what the caller's batches raised, or that answers are missing."""
        if self._error is not None:
            raise self._error
        if self._counts or not self._are_all_sent:
            raise InvalidResponse("the server ended the stream before it had answered each batch")

    def _request(self, images: ArrayLike) -> pb.PredictRequest:
        rows = to_images(images)
        request = predict_request(rows)
        self._counts.append(len(rows))
        return request


def iterate(batches: Iterable[ArrayLike]) -> Iterator[ArrayLike]:
    """Return the iterator over a caller's batches.

    Raises:
        InvalidInput: they are no iterable.
    """
    try:
        return iter(batches)
    except TypeError as error:
        kind = type(batches).__name__
        raise InvalidInput(f"batches: got {kind}; must be an iterable of images") from error


def iterate_async(
    batches: Iterable[ArrayLike] | AsyncIterable[ArrayLike],
) -> Iterator[ArrayLike] | AsyncIterator[ArrayLike]:
    """Return the iterator over a caller's batches, which may be an async iterable.

    Raises:
        InvalidInput: they are no iterable.
    """
    return aiter(batches) if isinstance(batches, AsyncIterable) else iterate(batches)


class WatchedRun:
    """The messages of one WatchRun, from the first on.

    Args:
        number: of the run that the request names; None for the newest.
    """

    def __init__(self, number: int | None) -> None:
        self._number = number
        self._epochs: int | None = None  # how many the run has, once it is known
        self._last_epoch = 0

    def parse(self, content: bytes) -> list[Run | Progress]:
        """Return the run or the epochs in a message; nothing of a kind that a later server sends.

        Raises:
            InvalidResponse: the message does not fit those before it.
        """
        message = decode(pb.WatchRunResponse, content)
        kind = message.WhichOneof("what")
        if kind == "run":
            if self._number not in (None, message.run.run):
                raise invalid("run", message.run.run, f"{self._number}, as the request says")
            self._number, self._epochs = message.run.run, message.run.epochs
            return [parse_run(message.run)]
        if kind == "progress":
            epochs = self._epochs or message.progress.epochs
            progress = parse_epochs(message.progress, epochs, after=self._last_epoch)
            self._last_epoch = progress[-1].epoch
            return [*progress]
        if not content:
            raise invalid("what", "nothing", "a run or the progress of one")
        return []
