"""The progress of a run as a server tells it: each epoch once."""

from __future__ import annotations

from collections import deque

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_client.results import Progress


class ProgressBuffer:
    """What has been told of a run, and not been given yet: each epoch once, oldest first."""

    def __init__(self) -> None:
        self.last: Progress | None = None  # that was told
        self.waiting: deque[Progress] = deque()

    def add(self, response: pb.TrainResponse) -> None:
        """Takes in a message; a run that is asked for again repeats its last epoch."""
        for at in parse_epochs(response):
            if self.last is None or at.epoch > self.last.epoch:
                self.waiting.append(at)
                self.last = at


def parse_epochs(response: pb.TrainResponse) -> list[Progress]:
    """All that one message tells of, oldest first."""
    return [*map(Progress.of, response.earlier), Progress.of(response)]
