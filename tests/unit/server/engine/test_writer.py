"""Tests of the writer when a part fails: every caller gets an answer, no wrong data is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from mnist37_server.domain.commands.commands import Initialize, Restore, Step
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.examples import Batch
from mnist37_server.domain.parameters import absolute_sum
from mnist37_server.domain.results import Progress, Result, StepResult, WriteResult
from mnist37_server.domain.snapshot import Origin, Snapshot
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.engine.writes.commit_delay import SLOW_COMMIT_SECONDS
from mnist37_server.engine.writes.subscription import Subscription
from mnist37_server.errors import CallerCancelled, InvalidArgument, NotFound, ShuttingDown
from mnist37_server.storage.store import Store
from mnist37_server.training.trainer import Trainer
from support.twin import Twin, data, datasets

from mnist37.host import Host, HostExamples
from mnist37.optimizer import Sgd


@pytest.fixture
def model() -> Iterator[LiveModel]:
    torch.set_num_threads(1)
    model = LiveModel(datasets(), Host(), Store(None))
    yield model
    model.stop_writing()
    model.close()


def fail(*_: object) -> None:
    raise RuntimeError("the device is lost")


def test_an_unexpected_error_fails_only_its_own_write(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The write waits behind a run with two others, which are done.
    run = iter(model.submit(Train(epochs=50)))
    next(run)
    waiting = [model.submit(request) for request in (Step(), Initialize(seed=7), Step())]
    monkeypatch.setattr("mnist37_server.training.trainer.Trainer.initialize", fail)
    list(run)
    first = waiting[0].only(StepResult)
    with pytest.raises(RuntimeError, match="lost"):
        waiting[1].only(WriteResult)
    assert [first.version, waiting[2].only(StepResult).version] == [50 * 49 + 1, 50 * 49 + 2]
    twin = Twin()
    twin.train(50)
    twin.step()
    twin.step()
    assert model.at().snapshot.digest == twin.digest


def test_a_model_that_can_no_longer_be_trained_refuses_writes_and_serves_reads(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.at().snapshot
    monkeypatch.setattr("mnist37_server.training.trainer.Trainer.step_through", fail)
    monkeypatch.setattr("mnist37_server.training.trainer.Trainer.reset", fail)
    for _ in range(2):
        with pytest.raises(ShuttingDown, match="the device is lost"):
            model.submit(Step()).only(StepResult)
    assert model.at().snapshot is before


def test_a_failing_commit_fails_what_was_computed_on_it_and_no_more(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = model.submit(Train(epochs=100_000), "run")
    answers = iter(run)
    next(answers)
    with monkeypatch.context() as broken:
        broken.setattr("mnist37_server.storage.store.Store.commit", fail)
        with pytest.raises(RuntimeError, match="lost"):
            list(answers)
        reached = model.at().snapshot.version
    assert model.submit(Step()).only(StepResult).version == reached + 1
    twin = Twin()
    twin.train(reached // 49)
    twin.step()
    assert model.at().snapshot.digest == twin.digest


def test_on_a_slow_disk_steps_go_on_while_a_commit_is_under_way_and_fail_with_it(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The third commit fails; no write that was computed on it may be acknowledged.
    commits = count(1)
    commit = Store.commit

    def commit_slowly(store: Store, *arguments: Any) -> None:
        number = next(commits)
        time.sleep(2 * SLOW_COMMIT_SECONDS)
        if number == 3:
            fail()
        commit(store, *arguments)

    monkeypatch.setattr("mnist37_server.storage.store.Store.commit", commit_slowly)
    waiting = []
    for _ in range(40):
        waiting.append(model.submit(Step()))
        time.sleep(SLOW_COMMIT_SECONDS / 4)
    acknowledged, failed = [], 0
    for write in waiting:
        try:
            acknowledged.append(write.only(StepResult).version)
        except RuntimeError:
            failed += 1
    assert next(commits) > 4, "there must be commits after the one that failed"
    assert failed
    assert acknowledged == list(range(1, 41 - failed)), "failed writes must leave no gap"
    twin = Twin()
    for _ in acknowledged:
        twin.step()
    newest = model.at().snapshot
    assert (newest.version, newest.digest) == (
        len(acknowledged),
        twin.digest,
    )


def test_of_the_waiting_steps_only_those_that_overflow_are_refused(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Steps wait behind a run, so that the writer does them in one batch.
    twin = Twin()
    twin.train(50)
    monkeypatch.setattr(
        "mnist37_server.training.trainer.ABSOLUTE_SUM_MAX",
        10 * absolute_sum(twin.parameters.numpy()),
    )
    run = iter(model.submit(Train(epochs=50)))
    next(run)
    rates = [0.5, 1.0, 1e12, 2.0, 1e38, 1e12, 0.1]
    waiting = [model.submit(Step(sgd=Sgd(rate))) for rate in rates]
    list(run)
    versions = []
    for rate, write in zip(rates, waiting, strict=True):
        if rate > 10:
            with pytest.raises(InvalidArgument, match="learning_rate: this one drives the model"):
                write.only(StepResult)
        else:
            versions.append(write.only(StepResult).version)
            twin.step(rate)
    assert versions == list(range(50 * 49 + 1, 50 * 49 + 5)), "refused writes must leave no gap"
    newest = model.at().snapshot
    assert (newest.version, newest.digest) == (versions[-1], twin.digest)
    assert model.at(versions[0]).snapshot.origin is Origin.STEP
    assert model.submit(Step()).only(StepResult).version == versions[-1] + 1


def test_a_step_that_is_cancelled_while_another_is_refused_is_not_done(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of three Steps in one batch the first overflows, and the second's caller cancels.
    run = iter(model.submit(Train(epochs=50)))
    next(run)
    waiting = [
        model.submit(Step(sgd=Sgd(rate)), name)
        for name, rate in (("first", 1.0), ("left", 2.0), ("last", 3.0))
    ]
    batches: list[Sequence[Sgd]] = []
    step_through = Trainer.step_through

    def overflow(trainer: Trainer, settings: Sequence[Sgd]) -> list[tuple[float, Snapshot]]:
        batches.append(settings)
        if settings[0] == Sgd(1.0):
            model.cancel(waiting[1])
            return []
        return step_through(trainer, settings)

    monkeypatch.setattr(Trainer, "step_through", overflow)
    list(run)
    for caller, error in zip(waiting, (InvalidArgument, CallerCancelled), strict=False):
        with pytest.raises(error):
            caller.only(StepResult)
    assert waiting[2].only(StepResult).version == 50 * 49 + 1
    assert batches == [[Sgd(1.0), Sgd(2.0), Sgd(3.0)], [Sgd(3.0)]]
    monkeypatch.undo()
    assert model.submit(Step(sgd=Sgd(2.0)), "left").only(StepResult).version == 50 * 49 + 2


def test_all_kinds_of_writes_that_wait_are_done_in_their_order(model: LiveModel) -> None:
    # Among them are Steps with and without a batch, across the end of an epoch.
    run = iter(model.submit(Train(epochs=50)))
    next(run)
    pixels, labels = data().valid.pixels[:20], data().valid.labels[:20]
    batch = Batch(pixels.tobytes(), labels.tobytes())
    requests: list[Step] = [
        Step(),
        Step(batch, Sgd(0.3)),
        Step(sgd=Sgd(0.2)),
        *[Step()] * 49,
        Step(batch),
    ]
    waiting = [model.submit(request) for request in requests]
    waiting += [model.submit(Initialize(seed=7)), model.submit(Step())]
    list(run)
    answers: list[Result] = [answer for write in waiting for answer in write]
    assert [answer.version - 50 * 49 for answer in answers] == list(range(1, len(waiting) + 1))
    twin, resident = Twin(), HostExamples(pixels, labels)
    twin.train(50)
    for request in requests:
        if request.batch is None:
            twin.step(request.sgd.learning_rate)
        else:
            resident.sgd(twin.parameters.numpy(), np.zeros(1, np.int64), 20, request.sgd)
    before = model.at(answers[-3].version).snapshot
    assert (before.digest, before.batch_cursor) == (twin.digest, twin.batch_cursor)
    fresh = Twin(seed=7)
    fresh.batch_cursor = twin.batch_cursor
    fresh.step()
    assert (model.at().snapshot.digest, model.at().snapshot.batch_cursor) == (
        fresh.digest,
        fresh.batch_cursor,
    )


def test_a_write_whose_caller_cancelled_before_it_was_submitted_is_not_done(
    model: LiveModel,
) -> None:
    caller = Subscription()
    model.cancel(caller)
    model.submit(Step(), "left", caller)
    with pytest.raises(CallerCancelled):
        caller.only(StepResult)
    assert model.submit(Step(), "left").only(StepResult).version == 1


def test_restoring_a_version_that_is_not_retained_changes_nothing(model: LiveModel) -> None:
    before = model.at().snapshot
    with pytest.raises(NotFound):
        model.submit(Restore(5)).only(WriteResult)
    assert model.at().snapshot is before


def test_a_run_in_which_the_model_overflows_keeps_the_epochs_before(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slice has many epochs; the one that overflows is in the middle of a slice.
    twin, magnitudes = Twin(), []
    for epoch in range(1, 31):
        twin.train(1, 10.0, first=epoch)
        magnitudes.append(absolute_sum(twin.parameters.numpy()))
    bound = max(magnitudes[:20])
    last = next(
        i for i, found in enumerate(magnitudes) if found > bound
    )  # epochs before the overflow
    monkeypatch.setattr("mnist37_server.training.trainer.ABSOLUTE_SUM_MAX", bound)
    monkeypatch.setattr("mnist37_server.training.run.SLICE_SECONDS", 100)
    seen: list[Result] = []
    with pytest.raises(InvalidArgument, match="learning_rate"):
        seen.extend(model.submit(Train(epochs=100, sgd=Sgd(10.0)), "large"))
    with pytest.raises(InvalidArgument, match="learning_rate"):
        list(
            model.submit(Train(epochs=100, sgd=Sgd(10.0)), "large")
        )  # the resumed run overflows too
    twin = Twin()
    twin.train(last, 10.0)
    assert len(seen) == last >= 20
    newest = model.at().snapshot
    assert (newest.version, newest.digest) == (49 * last, twin.digest)
    monkeypatch.undo()
    assert model.submit(Step()).only(StepResult).version == 49 * last + 1


def test_a_run_that_is_stopped_again_and_again_ends_on_the_same_bits(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the second slice on, each slice has as many epochs as are allowed.
    monkeypatch.setattr("mnist37_server.training.run.SLICE_SECONDS", 100)
    seen: dict[int, Result] = {}
    stops = 0
    while 200 not in seen:
        caller = model.submit(Train(epochs=200), "stopped")
        with suppress(CallerCancelled):
            for progress in caller:
                assert isinstance(progress, Progress)
                seen[progress.epoch] = progress
                if progress.epoch > 15 * (stops + 1):
                    model.cancel(caller)
                    stops += 1
    assert stops >= 3
    twin = Twin()
    twin.train(200)
    newest = model.at().snapshot
    assert (newest.version, newest.digest) == (200 * 49, twin.digest)
    for epoch, progress in seen.items():
        assert isinstance(progress, Progress)
        assert (progress.version, progress.epochs) == (49 * epoch, 200)


def test_pending_answers_are_returned_together() -> None:
    caller = Subscription()
    caller.put(WriteResult(1), WriteResult(2))
    answers = caller.coalesced()
    assert next(answers) == [WriteResult(1), WriteResult(2)]
    caller.put(WriteResult(3))
    assert next(answers) == [WriteResult(3)]
    caller.put(WriteResult(4))
    caller.end(WriteResult(5), error=CallerCancelled("left"))
    assert next(answers) == [WriteResult(4), WriteResult(5)], "the answers come before the error"
    with pytest.raises(CallerCancelled):
        next(answers)
