"""Probabilities: right, and the same to the bit however the images are put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mnist37_server import prediction
from numpy.typing import NDArray

RANDOM = np.random.default_rng(0)
INK = RANDOM.random((700, 784)) < 0.3
IMAGES = (RANDOM.integers(0, 256, (700, 784)) * INK).astype(np.uint8)
WEIGHTS = RANDOM.standard_normal(784).astype(np.float32)
BIAS = np.float32(0.25)


def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return prediction.predict(prediction.pixel_weights(WEIGHTS), BIAS, images)


def test_probabilities_are_those_of_float64() -> None:
    scores = IMAGES.astype(np.float64) / 255 @ WEIGHTS.astype(np.float64) + float(BIAS)
    expected = 1 / (1 + np.exp(-scores))
    assert predict(IMAGES).dtype == np.float32
    np.testing.assert_allclose(predict(IMAGES), expected, atol=2e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 699), min_size=1, max_size=200))
def test_an_image_is_the_same_to_the_bit_in_any_batch(chosen: list[int]) -> None:
    alone = {index: predict(IMAGES[index : index + 1])[0] for index in chosen}
    together = predict(IMAGES[chosen])
    assert together.tolist() == [alone[index] for index in chosen]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 128, 700])
def test_an_image_is_the_same_to_the_bit_at_any_place(count: int) -> None:
    whole = predict(IMAGES)
    for start in range(0, 700 - count + 1, 97):
        part = predict(IMAGES[start : start + count])
        assert np.array_equal(part, whole[start : start + count])


def test_scores_beyond_what_exp_can_take_are_certain() -> None:
    weights = np.full(784, 1e4, np.float32)
    white, none = np.full((1, 784), 255, np.uint8), np.zeros((1, 784), np.uint8)
    assert prediction.predict(prediction.pixel_weights(weights), np.float32(0), white)[0] == 1
    assert prediction.predict(prediction.pixel_weights(-weights), np.float32(0), white)[0] == 0
    assert prediction.predict(prediction.pixel_weights(weights), np.float32(0), none)[0] == 0.5
