"""What is remembered of requests, runs and versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mnist37_server.domain.commands import Train
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin


class RunCheckpoint(NamedTuple):
    """How far a run came."""

    steps: int  # mini-batches done since the run began
    loss: int  # summed over the images of the epoch under way, in LOSS_UNITs
    elapsed: float  # seconds of training
    run: int  # its number
    started_at: float  # seconds since 1970


class RequestRecord(NamedTuple):
    """What is remembered of a request that has an id."""

    request_id: str
    fingerprint: bytes
    version: int
    result: tuple[float, ...] | None  # None: a run that is not finished
    checkpoint: RunCheckpoint | None = None


class VersionRecord(NamedTuple):
    """What is known of a kept version, besides its parameters."""

    version: int
    origin: Origin
    run: int | None
    committed_at: float  # seconds since 1970


@dataclass(frozen=True)
class RunRecord:
    """What is remembered of a run."""

    number: int
    request_id: str | None
    request: Train
    started_at: float  # seconds since 1970
    version: int  # of the model after its last commit
    finished: bool
    last: Progress | None  # of the last epoch that was finished


class ModelStats(NamedTuple):
    """How a live model stands at a moment."""

    version: int  # the newest that is committed
    steps: int  # of SGD, since the server began
    images_trained: int  # on those steps
    images_predicted: int  # since the server began
    pending_writes: int  # writes whose turn has not come
    runs_in_progress: bool  # whether a run is under way
    state_bytes: int  # that the database has
