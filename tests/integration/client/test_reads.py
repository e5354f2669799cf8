"""Tests of the reads of both clients: Predict, PredictStream and GetLoss."""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
from mnist37_client import AsyncClient, Client, InvalidInput, Loss, NotFound, Prediction
from numpy.typing import NDArray
from support.both_clients import ENDLESS_EPOCHS, IMAGES, LABELS, AnyClient, mean_loss

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


A = TypeVar("A", Prediction, Loss)


def repeat_until_commit(caller: AnyClient, call: Callable[[], A]) -> A:
    """Repeat a call until a commit changes the model during it, and return that call's answer.

    On a busy disk, half a second may pass between two commits.
    """
    deadline = time.monotonic() + 20
    while True:
        answer = call()
        if caller.get_model().version > answer.version:
            return answer
        assert time.monotonic() < deadline, "there were no commits"


def test_100_000_images_are_answered_from_one_version_while_a_run_goes_on(
    caller: AnyClient,
) -> None:
    many = np.concatenate([IMAGES] * 50)[:100_000]
    with caller.train(ENDLESS_EPOCHS) as run:
        next(run)
        found = repeat_until_commit(caller, lambda: caller.predict(many))
        few = caller.predict(IMAGES, version=found.version)
    assert found.version == few.version
    np.testing.assert_array_equal(found.probabilities, np.tile(few.probabilities, 50)[:100_000])


def test_an_older_retained_version_can_predict_and_be_evaluated(caller: AnyClient) -> None:
    before, loss = caller.predict(IMAGES[:9]), caller.get_loss("valid")
    after = caller.train(2).wait()
    again = caller.predict(IMAGES[:9], version=before.version)
    assert again.version == before.version < after.version
    np.testing.assert_array_equal(again.probabilities, before.probabilities)
    assert caller.get_loss("valid", version=loss.version) == loss
    assert caller.predict(IMAGES[:9]).version == after.version
    assert caller.get_loss("valid").loss == after.valid_loss < loss.loss


@pytest.mark.parametrize("version", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_version_that_is_not_retained_is_not_found(caller: AnyClient, version: int) -> None:
    with pytest.raises(NotFound, match=f"^version: {version} "):
        caller.predict(IMAGES[0], version=version)
    with pytest.raises(NotFound, match=f"^version: {version} "):
        caller.get_loss("valid", version=version)


# --- PredictStream


def test_a_stream_answers_in_order(caller: AnyClient) -> None:
    sizes = [3, 1, 200, 7, 0, 4, 1]  # 0 stands for a single image of shape 28 x 28
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


def test_the_caller_can_end_an_endless_stream(caller: AnyClient) -> None:
    counter = itertools.count()

    def batches() -> Iterator[NDArray[np.uint8]]:
        for index in counter:
            yield IMAGES[index % 2038]

    answers = caller.predict_stream(batches())
    found = [answer.probabilities[0] for answer in itertools.islice(answers, 20)]
    answers.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, caller.predict(IMAGES[:20]).probabilities)
    time.sleep(0.1)
    reached = next(counter)
    time.sleep(0.1)
    assert next(counter) == reached + 1  # the client no longer reads batches


def test_a_batch_may_wait_for_the_answer_to_the_one_before(client: Client) -> None:
    images: queue.SimpleQueue[NDArray[np.uint8] | None] = queue.SimpleQueue()

    def batches() -> Iterator[NDArray[np.uint8]]:
        while (image := images.get()) is not None:
            yield image

    answers = client.predict_stream(batches())
    expected = client.predict(IMAGES[:5]).probabilities
    for image, probability in zip(IMAGES[:5], expected, strict=True):
        images.put(image)
        assert next(answers).probabilities == probability
    images.put(None)
    assert list(answers) == []


def test_an_async_batch_may_wait_for_the_answer_to_the_one_before(client: Client) -> None:
    expected = client.predict(IMAGES[:5]).probabilities

    async def talk() -> None:
        images: asyncio.Queue[NDArray[np.uint8] | None] = asyncio.Queue()

        async def batches() -> AsyncIterator[NDArray[np.uint8]]:
            while (image := await images.get()) is not None:
                yield image

        async with AsyncClient(client.address) as caller:
            answers = aiter(caller.predict_stream(batches()))
            for image, probability in zip(IMAGES[:5], expected, strict=True):
                await images.put(image)
                assert (await anext(answers)).probabilities == probability
            await images.put(None)
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


# --- GetLoss


def test_the_loss_on_a_split(caller: AnyClient) -> None:
    valid = caller.get_loss("valid")
    assert (valid.count, valid.version) == (2038, caller.get_model().version)
    assert valid.loss == pytest.approx(mean_loss(caller.predict(IMAGES).probabilities, LABELS))
    assert caller.get_loss("train").count == 12_396


def test_the_loss_on_the_validation_images_is_the_splits(caller: AnyClient) -> None:
    found, split = caller.get_loss(images=IMAGES, labels=LABELS), caller.get_loss("valid")
    assert (found.count, found.version) == (split.count, split.version)
    assert found.loss == pytest.approx(split.loss, rel=1e-12)
    assert found.accuracy == pytest.approx(split.accuracy, rel=1e-12)


def test_the_loss_on_40_000_images_is_of_all_of_them_from_one_version(caller: AnyClient) -> None:
    # Sorted by label, so that the messages differ in their losses and their numbers of images.
    order = np.argsort(np.tile(LABELS, 20), kind="stable")[:40_000]
    images, labels = np.tile(IMAGES, (20, 1, 1))[order], np.tile(LABELS, 20)[order]
    with caller.train(ENDLESS_EPOCHS) as run:
        next(run)
        found = repeat_until_commit(caller, lambda: caller.get_loss(images=images, labels=labels))
        answers = caller.predict(images, version=found.version)
    assert found.count == 40_000
    assert found.loss == pytest.approx(mean_loss(answers.probabilities, labels), rel=1e-5)
    right = np.mean((answers.digits == 3) == (labels == 1))
    assert found.accuracy == pytest.approx(float(right), abs=1 / 2038)
