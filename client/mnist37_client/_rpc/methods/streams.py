"""The caller's batches of PredictStream and the messages of WatchRun, without I/O."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import ArrayLike

from mnist37_client._rpc.messages.checks import decode, invalid
from mnist37_client._rpc.messages.responses import parse_epochs, parse_run
from mnist37_client._rpc.methods.session import Session
from mnist37_client.errors import InvalidInput
from mnist37_client.results import Progress, Run


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
        session: of the client.
    """

    def __init__(self, number: int | None, session: Session) -> None:
        self._number = number
        self._session = session
        self._floor = session.floor
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
            position = message.progress.start, message.progress.version
            self._session.record_owner(self._floor, *position)
            return [*progress]
        if not content:
            raise invalid("what", "nothing", "a run or the progress of one")
        return []
