"""Tests of photos: the digit is found in each condition, and what is no digit is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from mnist37_client import Client
from stress.pictures import IMAGES, LABELS, MADE, REFUSALS, is_refused, places_of, prepare

COUNT = 3  # pictures a condition; `make pictures` has 1,000
WRONG_MORE = 1  # than of the raw images, so that a chance does not fail a test


@pytest.fixture(scope="module")
def trained(address: str) -> Iterator[Client]:
    with Client(address) as client:
        client.initialize()
        client.train(epochs=20).wait()
        yield client


@pytest.mark.parametrize("name", MADE)
def test_a_photo_is_read_as_the_raw_image_is(trained: Client, name: str) -> None:
    places = places_of(name, COUNT)
    found = [prepare(name, place) for place in places]
    images = [image for image in found if image is not None]
    assert len(images) == COUNT, "a picture of one digit is refused"
    digits = np.where(LABELS[places] == 1, 3, 7)
    right = (trained.predict(np.stack(images)).digits == digits).sum()
    raw = (trained.predict(IMAGES[places]).digits == digits).sum()
    assert right >= raw - WRONG_MORE


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_shows_no_one_whole_digit_is_refused(kind: str) -> None:
    refused = sum(is_refused(kind, number) for number in range(10))
    assert refused >= REFUSALS[kind] * 10 - 1
