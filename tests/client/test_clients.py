"""Client and AsyncClient against a real server: each behaviour written once, tried with both."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import json
import math
import queue
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import pytest
from mnist37_client import (
    Aborted,
    AlreadyExists,
    AsyncClient,
    AsyncTrainingRun,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidInput,
    Loss,
    Model,
    NotFound,
    Prediction,
    Progress,
    Stepped,
    TrainingRun,
    Unavailable,
    validation_images,
)
from numpy.typing import NDArray

T = TypeVar("T")

IMAGES, LABELS = validation_images()
FOR_EVER = 1_000_000  # epochs: far more than any test waits for
STEPS_AN_EPOCH = math.ceil(12_396 / 256)


class Blocking:
    """AsyncClient as a Client: each call is run to its end, on a loop in a thread of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def make() -> AsyncClient:
            return AsyncClient(*args, **kwargs)

        self.client = self.run(make())
        # A run that is dropped is cancelled, which has to happen on the loop: so none is dropped.
        self._runs: list[AsyncTrainingRun] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def end(self) -> None:
        async def drop() -> None:
            self._runs.clear()
            await self.client.close()

        self.run(drop())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def predict(self, *args: Any, **kwargs: Any) -> Prediction:
        return self.run(self.client.predict(*args, **kwargs))

    def predict_stream(self, batches: Any) -> Iterator[Prediction]:
        answers = self.client.predict_stream(batches)

        async def following() -> Prediction | None:
            return await anext(answers, None)

        async def leave() -> None:
            assert inspect.isasyncgen(answers)
            await answers.aclose()

        try:
            while (answer := self.run(following())) is not None:
                yield answer
        finally:
            self.run(leave())

    def train(self, *args: Any, **kwargs: Any) -> BlockingRun:
        async def begin() -> AsyncTrainingRun:
            return self.client.train(*args, **kwargs)

        self._runs.append(self.run(begin()))
        return BlockingRun(self, self._runs[-1])

    def step(self, *args: Any, **kwargs: Any) -> Stepped:
        return self.run(self.client.step(*args, **kwargs))

    def get_loss(self, *args: Any, **kwargs: Any) -> Loss:
        return self.run(self.client.get_loss(*args, **kwargs))

    def initialize(self, *args: Any, **kwargs: Any) -> int:
        return self.run(self.client.initialize(*args, **kwargs))

    def get_model(self) -> Model:
        return self.run(self.client.get_model())

    def close(self) -> None:
        self.run(self.client.close())


class BlockingRun(Iterator[Progress]):
    """AsyncTrainingRun as a TrainingRun."""

    def __init__(self, owner: Blocking, run: AsyncTrainingRun) -> None:
        self._owner = owner
        self._run = run

    def __next__(self) -> Progress:
        async def following() -> Progress | None:
            return await anext(self._run, None)

        progress = self._owner.run(following())
        if progress is None:
            raise StopIteration
        return progress

    def wait(self) -> Progress:
        return self._owner.run(self._run.wait())

    def cancel(self) -> None:
        async def cancel() -> None:
            self._run.cancel()

        self._owner.run(cancel())

    def __enter__(self) -> Self:
        self._owner.run(self._run.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner.run(self._run.__aexit__(kind, error, traceback))


AnyClient = Client | Blocking
Make = Callable[..., AnyClient]  # takes what Client takes


@pytest.fixture(params=["Client", "AsyncClient"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes clients of one of the two kinds, and closes them in the end."""
    made: list[AnyClient] = []

    def make(*args: Any, **kwargs: Any) -> AnyClient:
        kind = Client if request.param == "Client" else Blocking
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield make
    for client in made:
        if isinstance(client, Blocking):
            client.end()
        else:
            client.close()


@pytest.fixture
def caller(make: Make, address: str) -> AnyClient:
    """Of the shared server, its parameters freshly drawn from seed 42."""
    client = make(address)
    client.initialize()
    return client


def some_id() -> str:
    """A request_id that the server has never seen, though it may be older than these tests."""
    return uuid.uuid4().hex


def leave_after(client: AnyClient, count: int) -> list[Progress]:
    """Follows a run for `count` epochs, then leaves the loop over it."""

    async def follow(client: AsyncClient) -> list[Progress]:
        seen = []
        async for progress in client.train(FOR_EVER):
            seen.append(progress)
            if len(seen) == count:
                break
        return seen

    if isinstance(client, Blocking):
        return client.run(follow(client.client))
    seen = []
    for progress in client.train(FOR_EVER):
        seen.append(progress)
        if len(seen) == count:
            break
    return seen


def loss_of(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The mean of mnist_loss."""
    p = probabilities.astype(np.float64)
    return float(np.where(labels == 1, 1 - p, p).mean())


def assert_still(client: AnyClient) -> int:
    """No run is under way: a write gets its turn, and is the last; returns its version."""
    version = client.step().version
    time.sleep(0.1)
    assert client.get_model().version == version
    return version


# --- Predict


def test_a_prediction_has_digits_probabilities_and_a_version(caller: AnyClient) -> None:
    found = caller.predict(IMAGES)
    assert found.probabilities.shape == (2038,)
    assert found.probabilities.dtype == np.float32
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    assert found.digits.shape == (2038,)
    np.testing.assert_array_equal(found.digits, np.where(found.probabilities > 0.5, 3, 7))
    assert found.version == caller.get_model().version
    accuracy = float(np.mean((found.digits == 3) == (LABELS == 1)))
    assert accuracy == pytest.approx(caller.get_loss("valid").accuracy)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES[0],
        IMAGES[0].reshape(784),
        IMAGES[:1],
        IMAGES[:5],
        IMAGES[:5].reshape(5, 784),
        IMAGES[:5] / 255,
        (IMAGES[:5] / 255).astype(np.float32),
        IMAGES[:5].astype(np.int64),
        IMAGES[:5].tolist(),
    ],
    ids=["28x28", "784", "1x28x28", "5x28x28", "5x784", "float64", "float32", "int64", "list"],
)
def test_predict_takes_images_in_every_form(caller: AnyClient, images: Any) -> None:
    found = caller.predict(images).probabilities
    expected = caller.predict(IMAGES).probabilities[: len(found)]
    assert len(found) == (np.size(images) // 784)
    np.testing.assert_array_equal(found, expected)


def test_100_000_images_are_answered_from_one_version_while_a_run_goes_on(
    caller: AnyClient,
) -> None:
    many = np.concatenate([IMAGES] * 50)[:100_000]
    with caller.train(FOR_EVER) as run:
        next(run)
        found = caller.predict(many)
        few = caller.predict(IMAGES, version=found.version)
        later = caller.get_model().version
    assert later > found.version == few.version
    np.testing.assert_array_equal(found.probabilities, np.tile(few.probabilities, 50)[:100_000])


def test_an_older_version_that_is_kept_still_answers(caller: AnyClient) -> None:
    before, loss = caller.predict(IMAGES[:9]), caller.get_loss("valid")
    after = caller.train(2).wait()
    again = caller.predict(IMAGES[:9], version=before.version)
    assert again.version == before.version < after.version
    np.testing.assert_array_equal(again.probabilities, before.probabilities)
    assert caller.get_loss("valid", version=loss.version) == loss
    assert caller.predict(IMAGES[:9]).version == after.version
    assert caller.get_loss("valid").loss == after.valid_loss < loss.loss


@pytest.mark.parametrize("version", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_version_that_is_not_kept_is_not_found(caller: AnyClient, version: int) -> None:
    with pytest.raises(NotFound, match=f"^version: {version} "):
        caller.predict(IMAGES[0], version=version)
    with pytest.raises(NotFound, match=f"^version: {version} "):
        caller.get_loss("valid", version=version)


# --- PredictStream


def test_a_stream_answers_in_order(caller: AnyClient) -> None:
    sizes = [3, 1, 200, 7, 0, 4, 1]  # 0: a single image, as 28 x 28
    starts = list(itertools.accumulate(sizes, initial=0))
    batches = [IMAGES[a:b] if b > a else IMAGES[a] for a, b in itertools.pairwise(starts)]
    answers = list(caller.predict_stream(batches))
    assert len(answers) == len(batches)
    for batch, answer in zip(batches, answers, strict=True):
        expected = caller.predict(batch)
        assert answer.version == expected.version
        np.testing.assert_array_equal(answer.probabilities, expected.probabilities)
        np.testing.assert_array_equal(answer.digits, expected.digits)


def test_an_empty_stream_has_no_answers(caller: AnyClient) -> None:
    assert list(caller.predict_stream([])) == []


def test_an_endless_stream_is_followed_as_far_as_the_caller_likes(caller: AnyClient) -> None:
    taken = itertools.count()

    def batches() -> Iterator[NDArray[np.uint8]]:
        for index in taken:
            yield IMAGES[index % 2038]

    answers = caller.predict_stream(batches())
    found = [answer.probabilities[0] for answer in itertools.islice(answers, 20)]
    answers.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, caller.predict(IMAGES[:20]).probabilities)
    time.sleep(0.1)
    reached = next(taken)
    time.sleep(0.1)
    assert next(taken) == reached + 1  # nobody takes from it any more


def test_a_batch_may_wait_for_the_answer_to_the_one_before(client: Client) -> None:
    asked: queue.SimpleQueue[NDArray[np.uint8] | None] = queue.SimpleQueue()

    def batches() -> Iterator[NDArray[np.uint8]]:
        while (image := asked.get()) is not None:
            yield image

    answers = client.predict_stream(batches())
    expected = client.predict(IMAGES[:5]).probabilities
    for image, probability in zip(IMAGES[:5], expected, strict=True):
        asked.put(image)
        assert next(answers).probabilities == probability
    asked.put(None)
    assert list(answers) == []


def test_an_async_batch_may_wait_for_the_answer_to_the_one_before(client: Client) -> None:
    expected = client.predict(IMAGES[:5]).probabilities

    async def talk() -> None:
        asked: asyncio.Queue[NDArray[np.uint8] | None] = asyncio.Queue()

        async def batches() -> AsyncIterator[NDArray[np.uint8]]:
            while (image := await asked.get()) is not None:
                yield image

        async with AsyncClient(client.address) as caller:
            answers = aiter(caller.predict_stream(batches()))
            for image, probability in zip(IMAGES[:5], expected, strict=True):
                await asked.put(image)
                assert (await anext(answers)).probabilities == probability
            await asked.put(None)
            assert [answer async for answer in answers] == []

    asyncio.run(asyncio.wait_for(talk(), 10))


def test_an_exception_in_the_callers_own_iterator_is_the_callers(caller: AnyClient) -> None:
    def batches() -> Iterator[NDArray[np.uint8]]:
        yield IMAGES[0]
        yield IMAGES[1]
        raise KeyError("mine")

    answers = caller.predict_stream(batches())
    assert len(next(answers).probabilities) == len(next(answers).probabilities) == 1
    with pytest.raises(KeyError, match="mine"):
        next(answers)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.zeros((2, 783)), r"^images: got shape \(2, 783\)"),
        (np.full(784, np.nan), r"^images: got values from nan"),
        (np.broadcast_to(np.uint8(0), (85_488, 784)), "^images: got 85,488; .* 85,487"),
    ],
    ids=["wrong shape", "NaN", "too large"],
)
def test_a_bad_batch_ends_its_stream_only(caller: AnyClient, bad: NDArray[Any], match: str) -> None:
    answers = caller.predict_stream([IMAGES[0], bad, IMAGES[1]])
    assert len(next(answers).probabilities) == 1
    with pytest.raises(InvalidInput, match=match):
        next(answers)
    assert len(list(caller.predict_stream([IMAGES[0], IMAGES[1]]))) == 2


def test_as_many_images_as_a_message_holds_go_through_a_stream(caller: AnyClient) -> None:
    (answer,) = caller.predict_stream([np.broadcast_to(IMAGES[0].reshape(784), (85_487, 784))])
    assert len(answer.probabilities) == 85_487
    assert (answer.probabilities == caller.predict(IMAGES[0]).probabilities[0]).all()


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
    seen = leave_after(caller, 2)
    assert [progress.epoch for progress in seen] == [1, 2]
    assert assert_still(caller) > seen[-1].version  # and what was done stays


def test_a_run_stops_when_it_is_cancelled(caller: AnyClient) -> None:
    run = caller.train(FOR_EVER)
    seen = next(run)
    run.cancel()
    assert assert_still(caller) > seen.version
    run.cancel()  # harmless


def test_a_run_stops_at_the_end_of_its_with(caller: AnyClient) -> None:
    with caller.train(FOR_EVER) as run:
        seen = next(run)
    assert assert_still(caller) > seen.version


def test_a_cancelled_run_has_no_more_progress(caller: AnyClient) -> None:
    with caller.train(FOR_EVER) as run:
        first = next(run)
        run.cancel()
        epochs = [progress.epoch for progress in run]
        assert epochs == list(range(first.epoch + 1, first.epoch + 1 + len(epochs)))
        assert list(run) == []


def test_a_run_that_is_cancelled_before_its_first_epoch_has_no_last_progress(
    caller: AnyClient,
) -> None:
    run = caller.train(FOR_EVER, batch_size=1)
    run.cancel()
    with pytest.raises(Cancelled):
        run.wait()


def test_cancelling_a_run_after_its_end_is_harmless(caller: AnyClient) -> None:
    with caller.train(2) as run:
        last = run.wait()
        run.cancel()
        assert list(run) == []
    assert caller.get_model().version == last.version


def test_a_cancelled_task_stops_its_run(client: Client) -> None:
    async def give_up() -> None:
        async with AsyncClient(client.address) as caller:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.train(FOR_EVER).wait(), 0.3)
            before = await asyncio.wait_for(caller.step(), 10)
            assert (await caller.get_model()).version == before.version

    asyncio.run(give_up())
    assert_still(client)


def test_a_run_that_was_cut_off_goes_on_with_its_request_id(caller: AnyClient) -> None:
    whole = caller.train(20).wait()
    digest = caller.get_model().digest
    caller.initialize()
    name = some_id()
    with caller.train(20, request_id=name) as run:
        cut = next(run)
    rest = list(caller.train(20, request_id=name))
    assert rest[0].epoch > cut.epoch
    assert rest[-1].epoch == 20
    assert caller.get_model().digest == digest
    assert (rest[-1].train_loss, rest[-1].valid_loss) == (whole.train_loss, whole.valid_loss)
    assert rest[-1].elapsed > cut.elapsed


def test_a_run_that_was_cut_off_and_overtaken_is_aborted(caller: AnyClient) -> None:
    name = some_id()
    with caller.train(FOR_EVER, request_id=name) as run:
        next(run)
    version = assert_still(caller)
    with pytest.raises(Aborted, match=r"^request_id: "):
        caller.train(FOR_EVER, request_id=name).wait()
    assert caller.get_model().version == version


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
    expected = loss_of(caller.predict(images).probabilities, labels)
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


# --- GetLoss


def test_the_loss_on_a_split(caller: AnyClient) -> None:
    valid = caller.get_loss("valid")
    assert (valid.count, valid.version) == (2038, caller.get_model().version)
    assert valid.loss == pytest.approx(loss_of(caller.predict(IMAGES).probabilities, LABELS))
    assert caller.get_loss("train").count == 12_396


def test_the_loss_on_the_validation_images_is_the_splits(caller: AnyClient) -> None:
    found, split = caller.get_loss(images=IMAGES, labels=LABELS), caller.get_loss("valid")
    assert (found.count, found.version) == (split.count, split.version)
    assert found.loss == pytest.approx(split.loss, rel=1e-12)
    assert found.accuracy == pytest.approx(split.accuracy, rel=1e-12)


def test_the_loss_on_40_000_images_is_of_all_of_them_from_one_version(caller: AnyClient) -> None:
    # Sorted, so that the parts that are sent differ in their losses and in their number.
    order = np.argsort(np.tile(LABELS, 20), kind="stable")[:40_000]
    images, labels = np.tile(IMAGES, (20, 1, 1))[order], np.tile(LABELS, 20)[order]
    with caller.train(FOR_EVER) as run:
        next(run)
        found = caller.get_loss(images=images, labels=labels)
        answers = caller.predict(images, version=found.version)
        later = caller.get_model().version
    assert found.count == 40_000
    assert later > found.version
    assert found.loss == pytest.approx(loss_of(answers.probabilities, labels), rel=1e-5)
    right = np.mean((answers.digits == 3) == (labels == 1))
    assert found.accuracy == pytest.approx(float(right), abs=1 / 2038)


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
    name = some_id()
    first = write(caller, name)
    caller.step()
    model = caller.get_model()
    assert write(caller, name) == first
    again = caller.get_model()
    assert (again.version, again.digest) == (model.version, model.digest)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_id_that_stands_for_something_else_is_refused(
    caller: AnyClient, write: Callable[[AnyClient, str], object]
) -> None:
    name = some_id()
    first = caller.step(learning_rate=0.25, request_id=name)
    with pytest.raises(AlreadyExists, match=f"^request_id: .*{name}"):
        write(caller, name)
    assert caller.get_model().version == first.version


# --- What goes wrong

BAD: dict[str, tuple[Callable[[AnyClient], object], str]] = {
    # refused by the server
    "no epochs": (lambda c: c.train(0).wait(), "epochs"),
    "batch_size 0": (lambda c: c.train(1, batch_size=0).wait(), "batch_size"),
    "learning_rate NaN": (lambda c: c.step(learning_rate=math.nan), "learning_rate"),
    "std -1": (lambda c: c.initialize(std=-1), "std"),
    "label 2": (lambda c: c.step(IMAGES[:2], [1, 2]), "labels"),
    "labels too few, step": (lambda c: c.step(IMAGES[:2], [1]), "labels"),
    "request_id ''": (lambda c: c.step(request_id=""), "request_id"),
    "request_id long": (lambda c: c.initialize(request_id="x" * 129), "request_id"),
    # refused before anything is sent
    "epochs -1": (lambda c: c.train(-1), "epochs"),
    "epochs 1.5": (lambda c: c.train(1.5), "epochs"),  # type: ignore[arg-type]
    "epochs 2**32": (lambda c: c.train(2**32), "epochs"),
    "batch_size -1": (lambda c: c.train(1, batch_size=-1), "batch_size"),
    "seed 2**64": (lambda c: c.train(1, seed=2**64), "seed"),
    "seed -1": (lambda c: c.initialize(seed=-1), "seed"),
    "learning_rate text": (
        lambda c: c.step(learning_rate="fast"),  # type: ignore[arg-type]
        "learning_rate",
    ),
    "std text": (lambda c: c.initialize(std="wide"), "std"),  # type: ignore[arg-type]
    "request_id 5": (lambda c: c.step(request_id=5), "request_id"),  # type: ignore[arg-type]
    "predict version -1": (lambda c: c.predict(IMAGES[0], version=-1), "version"),
    "predict version 2**64": (lambda c: c.predict(IMAGES[0], version=2**64), "version"),
    "get_loss version -1": (lambda c: c.get_loss("valid", version=-1), "version"),
    "get_loss images version -1": (
        lambda c: c.get_loss(images=IMAGES[:1], labels=[1], version=-1),
        "version",
    ),
    "images shape": (lambda c: c.predict(np.zeros(7)), "images"),
    "images NaN": (lambda c: c.step(np.full(784, np.nan), [1]), "images"),
    "labels floats": (lambda c: c.step(IMAGES[:1], [0.5]), "labels"),
    "labels missing": (lambda c: c.step(IMAGES[:1]), "labels"),
    "images missing": (lambda c: c.get_loss(labels=[1]), "images"),
    "labels too few": (lambda c: c.get_loss(images=IMAGES[:2], labels=[1]), "labels"),
    "nothing": (lambda c: c.get_loss(), "(split|images|labels)"),
    "split unknown": (lambda c: c.get_loss("test"), "split"),  # type: ignore[arg-type]
    "split and images": (
        lambda c: c.get_loss("valid", images=IMAGES[:1], labels=[1]),
        "split",
    ),
    "step too large": (
        lambda c: c.step(np.broadcast_to(np.uint8(0), (85_488, 784)), np.zeros(85_488, int)),
        "images",
    ),
}


@pytest.mark.parametrize(("call", "field"), BAD.values(), ids=BAD)
def test_a_bad_value_is_named_and_changes_nothing(
    caller: AnyClient, call: Callable[[AnyClient], object], field: str
) -> None:
    version = caller.get_model().version
    with pytest.raises(InvalidInput, match=rf"^(batch\.)?{field}: ") as refused:
        call(caller)
    assert isinstance(refused.value, ValueError)
    assert caller.get_model().version == version


CALLS: dict[str, Callable[[AnyClient], object]] = {
    "predict": lambda client: client.predict(IMAGES[0]),
    "predict_stream": lambda client: list(client.predict_stream([IMAGES[0]])),
    "train": lambda client: client.train(1).wait(),
    "initialize": lambda client: client.initialize(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nobody_listens(make: Make, call: Callable[[AnyClient], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"nobody listens at {address}; is the server running"):
        call(make(address))
    assert time.monotonic() - began < 3


def test_a_listener_that_never_answers(make: Make) -> None:
    # The system accepts for a listener that does not; what is sent is never read.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(Unavailable, match=address):
            make(address).predict(IMAGES[0])
        assert time.monotonic() - began < 3.5


def test_a_step_that_comes_too_late_in_the_queue_is_not_done(
    make: Make, address: str, caller: AnyClient
) -> None:
    hasty = make(address, timeout=0.2)
    name = some_id()
    with caller.train(FOR_EVER) as run:
        next(run)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer within the timeout"):
            hasty.step(request_id=name)
        assert 0.15 < time.monotonic() - began < 2
        next(run)
    version = assert_still(caller)
    assert caller.step(request_id=name).version == version + 1  # it was not done before


def test_a_run_has_no_timeout(make: Make, address: str) -> None:
    hasty = make(address, timeout=0.2)
    with hasty.train(FOR_EVER) as run:
        while next(run).elapsed < 0.5:
            pass


def test_closing_the_client_ends_its_run(caller: AnyClient, client: Client) -> None:
    run = caller.train(FOR_EVER)
    seen = next(run)
    caller.close()
    with pytest.raises(Cancelled):
        for _ in run:
            pass
    assert assert_still(client) > seen.version


def test_closing_the_client_ends_a_call_that_waits(caller: AnyClient, client: Client) -> None:
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            caller.step()
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            ended.append(error)

    with client.train(FOR_EVER) as run:
        next(run)
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        caller.close()
        waiting.join(5)
        assert not waiting.is_alive()
    assert [type(error) for error in ended] == [Cancelled]
    assert_still(client)


def test_closing_twice_is_harmless(caller: AnyClient) -> None:
    caller.close()
    caller.close()


def test_a_with_closes_the_client(address: str) -> None:
    with Client(address) as client:
        run = client.train(FOR_EVER)
        next(run)
    with pytest.raises(Cancelled):
        list(run)

    async def same() -> None:
        async with AsyncClient(address) as client:
            run = client.train(FOR_EVER)
            await anext(run)
        with pytest.raises(Cancelled):
            await run.wait()

    asyncio.run(asyncio.wait_for(same(), 10))
    with Client(address) as client:
        assert_still(client)


# --- The package


def methods(kind: type) -> dict[str, list[tuple[str, Any, Any, Any]]]:
    """The public methods and __init__, with the parameters of each."""
    names = [name for name in dir(kind) if not name.startswith("_")]
    return {
        name: [
            (parameter.name, parameter.kind, parameter.default, parameter.annotation)
            for parameter in inspect.signature(getattr(kind, name)).parameters.values()
        ]
        for name in [*names, "__init__"]
    }


def test_both_clients_have_the_same_methods() -> None:
    blocking, awaited = methods(Client), methods(AsyncClient)
    # The one difference: its batches may come from an async iterator.
    *_, (name, kind, default, annotation) = awaited["predict_stream"]
    assert annotation == "Iterable[ArrayLike] | AsyncIterable[ArrayLike]"
    awaited["predict_stream"][-1] = (name, kind, default, "Iterable[ArrayLike]")
    # And whether it merges.
    awaited["__init__"] = [value for value in awaited["__init__"] if value[0] != "merge"]
    assert blocking == awaited
    assert set(blocking) >= {"predict", "predict_stream", "train", "step", "get_loss"}
    assert set(blocking) >= {"initialize", "get_model", "close"}


def test_both_runs_have_the_same_methods() -> None:
    blocking, awaited = methods(TrainingRun), methods(AsyncTrainingRun)
    del blocking["__init__"], awaited["__init__"]  # for their clients only
    assert blocking == awaited
    assert set(blocking) == {"wait", "cancel"}


LOADS = """
import json, sys, time
began = time.perf_counter()
from mnist37_client import validation_images
took = time.perf_counter() - began
first = list(sys.modules)
validation_images()
print(json.dumps([took, first, list(sys.modules)]))
"""


@pytest.mark.alone
def test_importing_the_client_is_light() -> None:
    took = []
    for _ in range(5):
        printed = subprocess.run(
            [sys.executable, "-c", LOADS], check=True, capture_output=True, text=True
        ).stdout
        seconds, first, later = json.loads(printed)
        took.append(seconds)
        heavy = {"torch", "torchvision", "mnist37.data", "mnist37_server"}
        heavy |= {"rich", "PIL", "plotext", "grpc_status"}
        assert not heavy & set(first)
        assert "mnist37" not in first
        assert not heavy & set(later)  # nor are the shipped images read with torch
    assert min(took) < 0.3


def test_the_package_names_what_it_gives() -> None:
    """Its names are loaded when they are asked for."""
    script = """
import mnist37_client
before = set(dir(mnist37_client))
assert before >= set(mnist37_client.__all__), before
from mnist37_client import *
assert {name for name in mnist37_client.__all__ if name in globals()} == set(mnist37_client.__all__)
assert issubclass(NotFound, Mnist37Error) and Client is mnist37_client.Client
try:
    mnist37_client.nothing
except AttributeError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "module 'mnist37_client' has no attribute 'nothing'\n"


def test_wait_after_the_loop_gives_the_last_progress(client: Client) -> None:
    run = client.train(epochs=2)
    *_, last = run
    assert run.wait() == last


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_closed_client_says_so(address: str, kind: type[Client] | type[AsyncClient]) -> None:
    image = np.zeros((28, 28), np.uint8)

    async def use_async() -> None:
        client = AsyncClient(address)
        await client.get_model()
        await client.close()
        with pytest.raises(Cancelled, match="the client is closed"):
            await client.predict(image)
        with pytest.raises(Cancelled, match="the client is closed"):
            client.train(epochs=1)
        with pytest.raises(Cancelled, match="the client is closed"):
            await anext(aiter(client.watch_run()))

    if kind is AsyncClient:
        asyncio.run(use_async())
        return
    client = Client(address)
    client.close()
    for call in (
        lambda: client.predict(image),
        lambda: client.train(epochs=1),
        lambda: next(client.watch_run()),
        lambda: next(client.predict_stream([image])),
    ):
        with pytest.raises(Cancelled, match="the client is closed"):
            call()


def test_closing_the_async_client_ends_its_streams(address: str) -> None:
    """With Cancelled, in tasks that nobody cancelled."""

    async def follow(client: AsyncClient) -> None:
        run = client.train(epochs=100_000)
        await anext(run)
        async for _ in client.watch_run(follow=True):
            pass

    async def main() -> None:
        client = AsyncClient(address)
        following = asyncio.create_task(follow(client))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await following

    asyncio.run(main())
