"""The progress of a run in the messages of a server, each epoch once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client._rpc.lifetime import NotCopied
from mnist37_client._rpc.messages.checks import decode
from mnist37_client._rpc.messages.responses import parse_epochs
from mnist37_client._rpc.methods.session import Session
from mnist37_client.errors import InvalidResponse
from mnist37_client.results import Progress


class ProgressBuffer:
    """A buffer of the epochs that the caller has not read yet: each epoch once, oldest first.

    Args:
        request: of the run.
        session: of the client.
    """

    def __init__(self, request: pb.TrainRequest, session: Session) -> None:
        self.request_id = request.request_id
        self.name = request.name if request.HasField("name") else None
        self.last: Progress | None = None  # of the newest message
        self.waiting: deque[Progress] = deque()
        self.epochs = request.epochs
        self._last_of_call = 0  # the last epoch in the newest call's messages
        self._session = session
        self._floor = session.floor  # when the newest call began

    def begin_call(self) -> None:
        """Begin to read a further call: the server repeats the run's last epoch in it."""
        self._last_of_call = 0
        self._floor = self._session.floor

    def parse(self, content: bytes) -> list[Progress]:
        """Return the epochs in a message of the newest call.

        Raises:
            InvalidResponse: the server's message is none of this run.
        """
        message = decode(pb.TrainResponse, content)
        progress = parse_epochs(message, self.epochs, after=self._last_of_call)
        self._last_of_call = progress[-1].epoch
        self._session.record_owner(self._floor, message.start, message.version)
        return progress

    def has_missed(self, progress: list[Progress]) -> bool:
        """Return whether epochs are missing between those that were added and these."""
        return self.last is not None and progress[0].epoch > self.last.epoch + 1

    def add(self, progress: Iterable[Progress]) -> None:
        """Add epochs, except those that came already."""
        for epoch in progress:
            if self.last is None or epoch.epoch > self.last.epoch:
                self.waiting.append(epoch)
                self.last = epoch

    def check_end(self) -> None:
        """Raise InvalidResponse unless the run's last epoch came: the server ended the stream."""
        came = self.last.epoch if self.last else 0
        is_over = came == self.epochs or (self.last is not None and self.last.stopped_early)
        if not is_over:
            raise InvalidResponse(
                f"the server ended the run's stream after epoch {came} of {self.epochs}"
            )


class RunHandle(NotCopied):
    """The part of a run's handle that both clients share: what is known of the run.

    Args:
        progress: what has arrived of the run.
    """

    def __init__(self, progress: ProgressBuffer) -> None:
        self._progress = progress

    @property
    def request_id(self) -> str:
        """Return the id with which the run can be resumed; the client makes one by default."""
        return self._progress.request_id

    @property
    def name(self) -> str | None:
        """Return the label of the run."""
        return self._progress.name

    @property
    def run(self) -> int | None:
        """Return the number of the run; None until its first progress has arrived."""
        return None if self._progress.last is None else self._progress.last.run

    @property
    def progress(self) -> Progress | None:
        """Return the newest progress that has arrived; None before the first."""
        return self._progress.last

    def __len__(self) -> int:
        """Return the number of epochs; a run with patience may have fewer."""
        return self._progress.epochs
