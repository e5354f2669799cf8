"""Tests of the CPU kernels: correct, equal to the bit in any batch, and without Python's lock."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnist37 import kernels
from mnist37.losses import LOSS_UNIT

RANDOM = np.random.default_rng(0)
INK = RANDOM.random((700, 784)) < 0.3
IMAGES = (RANDOM.integers(0, 256, (700, 784)) * INK).astype(np.uint8)
LABELS = RANDOM.integers(0, 2, 700).astype(np.uint8)
PARAMETERS = RANDOM.standard_normal(785).astype(np.float32)


def predict(
    images: NDArray[np.uint8], parameters: NDArray[np.float32] = PARAMETERS
) -> NDArray[np.float32]:
    probabilities = np.empty(len(images), np.float32)
    kernels.predict(images, parameters, probabilities)
    return probabilities


def predict_floats(images: NDArray[np.float32]) -> NDArray[np.float32]:
    probabilities = np.empty(len(images), np.float32)
    kernels.predict_floats(images, PARAMETERS, probabilities)
    return probabilities


def exact(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float64]:
    weights, bias = PARAMETERS[:-1].astype(np.float64), float(PARAMETERS[-1])
    ink = 255 if images.dtype == np.uint8 else 1
    return 1 / (1 + np.exp(-(images.astype(np.float64) / ink @ weights + bias)))


def test_probabilities_are_those_of_float64() -> None:
    np.testing.assert_allclose(predict(IMAGES), exact(IMAGES), atol=2e-6)


def test_floats_are_not_rounded_to_bytes() -> None:
    floats = RANDOM.random((700, 784), np.float32) * INK
    np.testing.assert_allclose(predict_floats(floats), exact(floats), atol=2e-6)
    # A probability is the same to the bit in any batch.
    for count in (1, 7, 8, 9, 63, 64, 65):
        part = predict_floats(floats[100 : 100 + count])
        assert np.array_equal(part, predict_floats(floats)[100 : 100 + count])


def test_images_may_be_read_only_and_unaligned_bytes() -> None:
    message = b"x" + IMAGES.tobytes()
    images = np.frombuffer(message, np.uint8, offset=1).reshape(-1, 784)
    assert np.array_equal(predict(images), predict(IMAGES))


@pytest.mark.parametrize(("start", "count"), [(0, 1), (1, 3), (7, 64), (785, 100)])
def test_images_in_a_message_are_those_of_an_array(start: int, count: int) -> None:
    message = bytes(start) + IMAGES[:count].tobytes() + b"more"
    found = bytearray(4 * count)
    kernels.predict_bytes(message, start, count, PARAMETERS, found)
    assert found == predict(IMAGES[:count]).tobytes()


@pytest.mark.parametrize(
    ("start", "count", "room"), [(1, 1, 4), (-1, 1, 4), (0, 2, 8), (0, 1, 3), (0, 1, 8), (0, -1, 0)]
)
def test_images_that_are_not_in_a_message_are_refused(start: int, count: int, room: int) -> None:
    with pytest.raises(ValueError, match=r"images|bytes"):
        kernels.predict_bytes(bytes(784), start, count, PARAMETERS, bytearray(room))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 699), min_size=1, max_size=200))
def test_an_image_is_the_same_to_the_bit_in_any_batch(chosen: list[int]) -> None:
    alone = {index: predict(IMAGES[index : index + 1])[0] for index in chosen}
    together = predict(IMAGES[chosen])
    assert together.tolist() == [alone[index] for index in chosen]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 128, 700])
def test_an_image_is_the_same_to_the_bit_at_any_index(count: int) -> None:
    whole = predict(IMAGES)
    for start in range(0, 700 - count + 1, 97):
        part = predict(IMAGES[start : start + count])
        assert np.array_equal(part, whole[start : start + count])


def test_scores_that_overflow_exp_have_probability_0_or_1() -> None:
    parameters = np.append(np.full(784, 1e4), 0).astype(np.float32)
    white, none = np.full((1, 784), 255, np.uint8), np.zeros((1, 784), np.uint8)
    assert predict(white, parameters)[0] == 1
    assert predict(white, -parameters)[0] == 0
    assert predict(none, parameters)[0] == 0.5


def test_evaluate_is_the_loss_and_the_accuracy_of_float64() -> None:
    total, threes_right, sevens_right, threes = kernels.evaluate(IMAGES, LABELS, PARAMETERS)
    probabilities = exact(IMAGES)
    losses = np.where(LABELS == 1, 1 - probabilities, probabilities)
    assert total * LOSS_UNIT == pytest.approx(losses.sum(), abs=1e-4)
    assert threes == (LABELS == 1).sum()
    assert threes_right == ((probabilities > 0.5) & (LABELS == 1)).sum()
    assert sevens_right == ((probabilities <= 0.5) & (LABELS == 0)).sum()


@given(st.lists(st.integers(1, 699), max_size=5, unique=True))
def test_losses_in_pieces_add_up_to_the_same(cuts: list[int]) -> None:
    whole = kernels.evaluate(IMAGES, LABELS, PARAMETERS)
    bounds = [0, *sorted(cuts), 700]
    parts = [
        kernels.evaluate(IMAGES[i:j], LABELS[i:j], PARAMETERS)
        for i, j in itertools.pairwise(bounds)
    ]
    assert tuple(map(sum, zip(*parts, strict=True))) == whole


def test_steps_in_pieces_end_on_the_same_bits() -> None:
    order = RANDOM.permutation(28)  # mini-batches of 25 images
    whole, parts = PARAMETERS.copy(), PARAMETERS.copy()
    total = kernels.sgd(IMAGES, LABELS, order, 25, whole, 0.5)
    pieces = [kernels.sgd(IMAGES, LABELS, order[i : i + 9], 25, parts, 0.5) for i in (0, 9, 18, 27)]
    assert sum(pieces) == total
    assert np.array_equal(parts, whole)
    assert not np.array_equal(whole, PARAMETERS)


def test_steps_with_their_losses_and_parameters_equal_single_steps() -> None:
    order, rates = RANDOM.permutation(28)[:9], np.linspace(0.1, 2, 9, dtype=np.float32)
    one_by_one, together = PARAMETERS.copy(), PARAMETERS.copy()
    losses, snapshots = np.empty(9, np.int64), np.empty((9, 785), np.float32)
    inputs = IMAGES, LABELS, order, 25
    assert kernels.steps(*inputs, together, rates, np.inf, losses, snapshots) == 9
    for i, rate in enumerate(rates):
        assert losses[i] == kernels.sgd(IMAGES, LABELS, order[i : i + 1], 25, one_by_one, rate)
        assert np.array_equal(snapshots[i], one_by_one)
    assert np.array_equal(together, one_by_one)


@pytest.mark.parametrize("rate", [1e30, np.inf])
def test_steps_end_before_the_first_that_overflows(rate: float) -> None:
    order, rates = np.arange(6), np.array([0.1, 0.2, rate, 0.1, 0.1, 0.1], np.float32)
    losses, snapshots = np.empty(6, np.int64), np.full((6, 785), -1, np.float32)
    parameters, first = PARAMETERS.copy(), PARAMETERS.copy()
    inputs = IMAGES, LABELS, order, 25
    assert kernels.steps(*inputs, parameters, rates, 1e20, losses, snapshots) == 2
    kernels.sgd(IMAGES, LABELS, order[:1], 25, first, 0.1)
    kernels.sgd(IMAGES, LABELS, order[1:2], 25, first, 0.2)
    assert np.array_equal(snapshots[1], first)
    assert (snapshots[2:] == -1).all()


def test_other_threads_run_while_a_kernel_runs() -> None:
    order, batches = np.zeros(20_000, np.int64), []
    parameters = PARAMETERS.copy()
    work = threading.Thread(
        target=lambda: batches.append(kernels.sgd(IMAGES, LABELS, order, 256, parameters, 1e-6))
    )
    work.start()
    turns = 0
    while work.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10, "this thread waited for Python's lock"
