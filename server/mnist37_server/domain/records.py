"""Records of requests, runs and versions as the store keeps them, and the stats of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.early_stopping import Baseline, BestEpoch
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin


class RunCheckpoint(NamedTuple):
    """The position of a run, from which it can go on."""

    steps: int  # steps of SGD since the run began
    loss: int  # sum over the images of the unfinished epoch, in LOSS_UNITs
    elapsed: float  # seconds of training
    run: int  # the number of the run
    started_at: float  # seconds since 1970
    best: BestEpoch | None = None  # so far; None before the first epoch has ended
    baseline: Baseline | None = None  # of a run with early stopping


class RequestRecord(NamedTuple):
    """The record of a request that has a request_id."""

    request_id: str
    fingerprint: bytes
    version: int
    result: tuple[float, ...] | None  # None for a run that is not finished
    checkpoint: RunCheckpoint | None = None


class VersionRecord(NamedTuple):
    """The record of a retained version, without its parameters."""

    version: int
    origin: Origin
    run: int | None
    committed_at: float  # seconds since 1970


@dataclass(frozen=True)
class RunRecord:
    """The record of a run."""

    number: int
    request_id: str | None
    request: Train
    started_at: float  # seconds since 1970
    version: int  # of the model after its last commit
    finished: bool
    last: Progress | None  # of the last finished epoch
    best: BestEpoch | None = None  # so far


class QueuedRun(NamedTuple):
    """A run that waits for its turn."""

    position: int  # how many writes come before it, the current one included
    request_id: str | None
    request: Train


class TagRecord(NamedTuple):
    """The record of a tag."""

    name: str
    version: int
    run: int | None  # the number of the run that made the version
    tagged_at: float  # seconds since 1970


class ModelStats(NamedTuple):
    """The stats of a live model at one moment, for the metrics."""

    version: int  # the newest committed version
    steps: int  # steps of SGD since the server started
    images_trained: int  # images in these steps
    images_predicted: int  # since the server started
    pending_writes: int  # writes in the queue
    runs_in_progress: bool  # whether a run is under way
    state_bytes: int  # size of the database
    state_log_bytes: int  # size of its write-ahead log
    followers: int  # that are connected
    follower_lag_seconds: float  # since a version came that some follower was not sent yet


class FollowerStats(NamedTuple):
    """The stats of a follower at one moment, for the metrics."""

    version: int | None  # the newest that came; None before the first
    age_seconds: float | None  # for how long it may have been out of date
    resets: int  # how often the owner turned out to have another history
    connected: bool  # whether the owner is heard
    images_predicted: int  # since the server started
    followers: int  # that follow this follower
    lag_seconds: float  # since a version came that some of these was not sent yet
