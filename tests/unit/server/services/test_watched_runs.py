"""Tests of what WatchRun sends of a run that has not committed anything yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.early_stopping import BestEpoch
from mnist37_server.domain.records import RunRecord
from mnist37_server.domain.results import Progress
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.run_watch import RunWatch
from mnist37_server.engine.stats import EngineStats
from mnist37_server.engine.writes.write_queue import WriteQueue
from mnist37_server.rpc.threads.thread_pools import LifoThreadPool
from mnist37_server.services.messages.watched_runs import watch_run
from mnist37_server.services.mnist37_service import Mnist37Servicer
from mnist37_server.storage.store import Store

RUN = 1
EPOCHS = (
    Progress(1, 2, 0.5, 0.4, 0.9, version=1, elapsed=1.0, run=RUN),
    Progress(2, 2, 0.4, 0.3, 0.9, version=2, elapsed=2.0, run=RUN),
)


class Training:
    """A run under way, in a real store and a real queue, as the writer does it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.store.commit([Snapshot(0, bytes(4 * 785), 0, Origin.INITIALIZE)], [])
        self.queue = WriteQueue(lambda _: None, EngineStats())
        self.queue.submit(Train(epochs=2))
        (self._write,) = self.queue.take()
        self.queue.begin_run(self._write, RUN, np.zeros(1, np.uint8))

    def commit(self, progress: Progress) -> None:
        best = BestEpoch(1, 0.1, 1)
        request = self._write.request
        assert isinstance(request, Train)
        is_last = progress is EPOCHS[-1]
        run = RunRecord(RUN, None, request, 1.0, progress.version, is_last, progress, best)
        snapshot = Snapshot(progress.version, bytes(4 * 785), 0, Origin.TRAIN, RUN)
        self.store.commit([snapshot], [], [(run, [progress])])
        report = self.queue.finish if is_last else self.queue.publish_progress
        report(self._write, progress)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path)
    yield training
    training.store.close()


def test_the_state_comes_first_of_a_run_that_commits_after_the_watch_began(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = RunWatch(training.queue, training.store, RUN)
    read_curve = watch.curve

    def train_after_reading() -> list[Progress]:
        retained = read_curve()
        for progress in EPOCHS:
            training.commit(progress)
        return retained

    monkeypatch.setattr(watch, "curve", train_after_reading)
    messages = list(watch_run(watch, pb.WatchRunRequest(follow=True)))
    kinds = [message.WhichOneof("what") for message in messages]
    assert kinds == ["run", "progress", "progress", "run"]
    assert messages[-1].run.state == pb.RUN_STATE_FINISHED


class StatusSet(Exception):
    """The status of a call."""


def refuse(status: object) -> None:
    raise StatusSet(status)


def test_a_watch_ends_at_once_if_its_call_ended_before_it_asked_to_be_told(
    training: Training,
) -> None:
    watch = RunWatch(training.queue, training.store, RUN)
    model: Any = SimpleNamespace(watch=lambda _: watch)
    service = Mnist37Servicer(model, model, LifoThreadPool(1, "long-call"))
    left: Any = SimpleNamespace(
        time_remaining=lambda: 60.0,
        is_active=lambda: True,  # until now
        add_callback=lambda _: False,
        abort_with_status=refuse,
    )
    ended = threading.Event()

    def call() -> None:
        with suppress(StatusSet):
            list(service.WatchRun(pb.WatchRunRequest(follow=True), left))
        ended.set()

    threading.Thread(target=call, daemon=True).start()
    try:
        assert ended.wait(20), "the thread waits for epochs that nobody reads"
    finally:
        watch.close()
