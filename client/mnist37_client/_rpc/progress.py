"""The progress of a run in the messages of a server, each epoch once."""

from __future__ import annotations

from collections import deque

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client.results import Progress


class ProgressBuffer:
    """A buffer of the epochs that the caller has not read yet: each epoch once, oldest first."""

    def __init__(self) -> None:
        self.last: Progress | None = None  # of the newest message
        self.waiting: deque[Progress] = deque()

    def add(self, response: pb.TrainResponse) -> None:
        """Add the epochs of a message; after a retry the server repeats the run's last epoch."""
        for progress in parse_epochs(response):
            if self.last is None or progress.epoch > self.last.epoch:
                self.waiting.append(progress)
                self.last = progress


def parse_epochs(response: pb.TrainResponse) -> list[Progress]:
    """Return all epochs in a message, oldest first."""
    return [*map(Progress.of, response.earlier), Progress.of(response)]
