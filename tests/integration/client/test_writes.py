"""Tests of the writes of both clients: Train, Step and Initialize, and request ids."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Aborted, AlreadyExists, AsyncClient, Cancelled, Client, Model
from mnist37_client._rpc.methods.progress import ProgressBuffer
from mnist37_client._rpc.methods.retry import RetryPolicy
from mnist37_client._rpc.methods.session import Session
from mnist37_client.runs.async_training_run import AsyncTrainingRun
from mnist37_protos.v1 import mnist37_pb2 as pb
from numpy.typing import NDArray
from support.both_clients import (
    ENDLESS_EPOCHS,
    IMAGES,
    LABELS,
    STEPS_AN_EPOCH,
    AnyClient,
    assert_no_run,
    mean_loss,
    new_request_id,
    train_and_leave,
)

# --- Train


def test_a_run_reports_each_epoch(caller: AnyClient) -> None:
    before = caller.get_model().version
    seen = list(caller.train(5))
    assert [progress.epoch for progress in seen] == [1, 2, 3, 4, 5]
    assert {progress.epochs for progress in seen} == {5}
    assert [p.version - before for p in seen] == [STEPS_AN_EPOCH * n for n in range(1, 6)]
    for progress in seen:
        assert 0 < progress.train_loss < 1
        found = caller.get_loss("valid", version=progress.version)
        assert (progress.valid_loss, progress.valid_accuracy) == (found.loss, found.accuracy)
    assert seen[-1].valid_loss < seen[0].valid_loss
    elapsed = [0.0, *(progress.elapsed for progress in seen)]
    assert all(earlier < later for earlier, later in itertools.pairwise(elapsed))
    assert elapsed[-1] < 30


def test_a_run_takes_its_settings(caller: AnyClient) -> None:
    def outcome(**settings: Any) -> str:
        caller.initialize()
        caller.train(1, **settings).wait()
        return caller.get_model().digest

    usual = outcome()
    assert outcome(learning_rate=1.0, batch_size=256, seed=42) == usual
    others = [outcome(learning_rate=0.5), outcome(batch_size=255), outcome(seed=43)]
    assert len({usual, *others}) == 4


def test_wait_follows_a_run_to_its_end(caller: AnyClient) -> None:
    before = caller.get_model().version
    last = caller.train(3, batch_size=1000).wait()
    assert (last.epoch, last.epochs, last.version) == (3, 3, before + 3 * 13)
    assert caller.get_model().version == last.version


def test_wait_gives_the_end_of_a_run_that_was_followed_in_part(caller: AnyClient) -> None:
    run = caller.train(3)
    assert next(run).epoch == 1
    assert run.wait().epoch == 3


def test_a_run_stops_when_its_loop_is_left(caller: AnyClient) -> None:
    seen = train_and_leave(caller, 2)
    assert [progress.epoch for progress in seen] == [1, 2]
    assert assert_no_run(caller) > seen[-1].version  # the epochs that were done stay


def test_a_run_stops_when_it_is_cancelled(caller: AnyClient) -> None:
    run = caller.train(ENDLESS_EPOCHS)
    seen = next(run)
    run.cancel()
    assert assert_no_run(caller) > seen.version
    run.cancel()  # harmless


def test_a_run_stops_at_the_end_of_its_with(caller: AnyClient) -> None:
    with caller.train(ENDLESS_EPOCHS) as run:
        seen = next(run)
    assert assert_no_run(caller) > seen.version


def test_a_cancelled_run_has_no_more_progress(caller: AnyClient) -> None:
    with caller.train(ENDLESS_EPOCHS) as run:
        first = next(run)
        run.cancel()
        epochs = [progress.epoch for progress in run]
        assert epochs == list(range(first.epoch + 1, first.epoch + 1 + len(epochs)))
        assert list(run) == []


def test_a_run_that_is_cancelled_before_its_first_epoch_has_no_last_progress(
    caller: AnyClient,
) -> None:
    run = caller.train(ENDLESS_EPOCHS, batch_size=1)
    run.cancel()
    with pytest.raises(Cancelled):
        run.wait()


def test_cancelling_a_run_after_its_end_is_harmless(caller: AnyClient) -> None:
    with caller.train(2) as run:
        last = run.wait()
        run.cancel()
        assert list(run) == []
    assert caller.get_model().version == last.version


def message(*numbers: int, epochs: int) -> bytes:
    """Make a message with the progress of some epochs of a run."""
    *earlier, last = (pb.TrainResponse(epoch=number, epochs=epochs) for number in numbers)
    last.earlier.extend(earlier)
    return last.SerializeToString()


def test_progress_that_comes_again_after_a_retry_is_dropped() -> None:
    epochs = ProgressBuffer(pb.TrainRequest(epochs=5), Session())
    for numbers in ((1,), (2, 3), (3,), (3,), (3, 4, 5)):
        epochs.begin_call()
        epochs.add(epochs.parse(message(*numbers, epochs=5)))
    assert [at.epoch for at in epochs.waiting] == [1, 2, 3, 4, 5]
    assert epochs.last is not None
    assert epochs.last.epoch == 5


def test_other_tasks_run_while_coalesced_epochs_are_delivered() -> None:
    class Call:
        def __init__(self) -> None:
            self.messages: list[object] = [message(*range(1, 101), epochs=100), grpc.aio.EOF]

        async def read(self) -> object:
            return self.messages.pop(0)

        def cancel(self) -> None:
            pass

    async def follow() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counter = asyncio.create_task(other())
        call: Any = Call()
        never: Any = None  # nothing is asked for but the messages
        progress = ProgressBuffer(pb.TrainRequest(epochs=100), Session())
        run = AsyncTrainingRun(lambda: call, progress, nullcontext, RetryPolicy(1.0), never, never)
        assert [at.epoch async for at in run] == list(range(1, 101))
        counter.cancel()
        return turns

    assert asyncio.run(follow()) >= 90


def test_a_cancelled_task_stops_its_run(client: Client) -> None:
    async def give_up() -> None:
        async with AsyncClient(client.address) as caller:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.train(ENDLESS_EPOCHS).wait(), 0.3)
            before = await asyncio.wait_for(caller.step(), 10)
            assert (await caller.get_model()).version == before.version

    asyncio.run(give_up())
    assert_no_run(client)


def test_a_run_that_was_interrupted_goes_on_with_its_request_id(caller: AnyClient) -> None:
    whole = caller.train(20).wait()
    digest = caller.get_model().digest
    caller.initialize()
    name = new_request_id()
    with caller.train(20, request_id=name) as run:
        cut = next(run)
    rest = list(caller.train(20, request_id=name))
    assert rest[0].epoch > cut.epoch
    assert rest[-1].epoch == 20
    assert caller.get_model().digest == digest
    assert (rest[-1].train_loss, rest[-1].valid_loss) == (whole.train_loss, whole.valid_loss)
    assert rest[-1].elapsed > cut.elapsed


def test_an_interrupted_run_is_aborted_after_another_write(caller: AnyClient) -> None:
    name = new_request_id()
    with caller.train(ENDLESS_EPOCHS, request_id=name) as run:
        next(run)
    version = assert_no_run(caller)
    with pytest.raises(Aborted, match=r"^request_id: "):
        caller.train(ENDLESS_EPOCHS, request_id=name).wait()
    assert caller.get_model().version == version


def test_wait_after_the_loop_gives_the_last_progress(client: Client) -> None:
    run = client.train(epochs=2)
    *_, last = run
    assert run.wait() == last


# --- Step


def test_a_step_without_a_batch_takes_the_training_sets_next(caller: AnyClient) -> None:
    before = caller.get_model()
    first = caller.step()
    assert first.version == before.version + 1
    assert caller.get_model().version == first.version
    assert caller.get_model().digest != before.digest
    assert 0 < first.loss < 1
    assert caller.step().version == first.version + 1


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, lambda labels: labels == 1])
def test_a_step_on_a_batch_returns_its_loss_from_before(
    caller: AnyClient, form: Callable[[NDArray[np.uint8]], Any]
) -> None:
    images, labels = IMAGES[900:1100], LABELS[900:1100]
    expected = mean_loss(caller.predict(images).probabilities, labels)
    stepped = caller.step(images, form(labels), learning_rate=0.1)
    assert stepped.loss == pytest.approx(expected, rel=1e-4)
    after = caller.get_loss(images=images, labels=labels)
    assert after.version == stepped.version
    assert after.loss < stepped.loss


def test_a_step_takes_its_learning_rate(caller: AnyClient) -> None:
    weights = caller.get_model().weights

    def moved(**settings: Any) -> NDArray[np.float32]:
        caller.initialize()
        caller.step(IMAGES, LABELS, **settings)
        return caller.get_model().weights - weights

    np.testing.assert_array_equal(moved(), moved(learning_rate=1.0))
    np.testing.assert_allclose(moved(learning_rate=0.5), moved() / 2, atol=1e-5)


# --- Initialize and GetModel


def test_initialize_draws_from_its_seed_and_std(caller: AnyClient) -> None:
    def drawn(**settings: Any) -> Model:
        version = caller.initialize(**settings)
        model = caller.get_model()
        assert model.version == version
        return model

    usual = drawn()
    again = drawn(seed=42, std=1.0)
    assert (again.digest, again.version) == (usual.digest, usual.version + 1)
    np.testing.assert_allclose(drawn(std=0.5).weights, usual.weights / 2, rtol=1e-6)
    assert drawn(seed=43).digest != usual.digest
    assert not drawn(std=0).weights.any()
    assert (caller.predict(IMAGES).probabilities == 0.5).all()


def test_the_model_is_its_parameters_and_their_digest(caller: AnyClient) -> None:
    caller.step()
    model = caller.get_model()
    assert model.weights.shape == (784,)
    assert model.weights.dtype == np.float32
    assert isinstance(model.bias, np.float32)
    content = model.weights.astype("<f4").tobytes() + model.bias.astype("<f4").tobytes()
    assert len(content) == 785 * 4
    assert model.digest == hashlib.sha256(content).hexdigest()
    assert model.device.split(":")[0] in ("cpu", "cuda")
    z = IMAGES.reshape(-1, 784) / 255 @ model.weights.astype(np.float64) + model.bias
    found = caller.predict(IMAGES)
    assert found.version == model.version
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-z)), atol=1e-5)


# --- request_id


WRITES: dict[str, Callable[[AnyClient, str], object]] = {
    "step": lambda client, name: client.step(request_id=name),
    "step on a batch": lambda client, name: client.step(IMAGES, LABELS, request_id=name),
    "train": lambda client, name: client.train(3, request_id=name).wait(),
    "initialize": lambda client, name: client.initialize(seed=1, std=0.1, request_id=name),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_repeated_gives_the_first_answer(
    caller: AnyClient, write: Callable[[AnyClient, str], object]
) -> None:
    name = new_request_id()
    first = write(caller, name)
    caller.step()
    model = caller.get_model()
    assert write(caller, name) == first
    again = caller.get_model()
    assert (again.version, again.digest) == (model.version, model.digest)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_id_of_another_request_is_refused(
    caller: AnyClient, write: Callable[[AnyClient, str], object]
) -> None:
    name = new_request_id()
    first = caller.step(learning_rate=0.25, request_id=name)
    with pytest.raises(AlreadyExists, match=f"^request_id: .*{name}"):
        write(caller, name)
    assert caller.get_model().version == first.version
