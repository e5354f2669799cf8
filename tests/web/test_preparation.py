"""Tests of the page's preparation of a drawing: the digits are found as in pictures of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from mnist37_client import Client, errors, validation_images
from mnist37_client.pictures import read_digit
from numpy.typing import NDArray
from support.drawings import Drawing, picture, placed, strokes_of
from support.web_page import WebPage

COUNT = 300
FILES = 100  # of them, as pictures: these take longer
RIGHT_MIN = 0.95  # share of the drawings
WORSE_MAX = 0.02  # than the preparation of a picture of the same drawing
PEN, THIN_PEN = 0.08, 0.025  # widths of lines, in units of the pad's side

Random: TypeAlias = np.random.Generator


def filling(drawing: Drawing, random: Random) -> Drawing:
    return placed(drawing, 0.84, *random.uniform(0.06, 0.1, 2))


def half_size(drawing: Drawing, random: Random) -> Drawing:
    return placed(drawing, 0.42, *random.uniform(0.06, 0.5, 2))


def of_few_points(drawing: Drawing, random: Random) -> Drawing:
    return [[*stroke[:-1:5], stroke[-1]] for stroke in filling(drawing, random)]


@pytest.fixture(scope="module")
def drawings() -> tuple[list[Drawing], NDArray[np.int64]]:
    """Return drawings along the lines of validation images, and their digits."""
    images, labels = validation_images()
    chosen = np.random.default_rng(37).choice(len(images), COUNT, replace=False)
    return [strokes_of(images[index]) for index in chosen], np.where(labels[chosen], 3, 7)


@pytest.mark.parametrize(
    ("place", "pen"),
    [(filling, PEN), (half_size, PEN), (of_few_points, THIN_PEN)],
    ids=["filling the pad", "half size, anywhere", "thin pen, few points"],
)
def test_drawings_are_recognised(
    trained: Client,
    page: WebPage,
    drawings: tuple[list[Drawing], NDArray[np.int64]],
    place: Callable[[Drawing, Random], Drawing],
    pen: float,
) -> None:
    random = np.random.default_rng(7)
    placed_drawings = [place(drawing, random) for drawing in drawings[0]]
    digits = drawings[1]
    encoded: list[str] = page.page.evaluate(
        """async (drawings) => { const { prepare } = await import('/page.js');
        return drawings.map((drawing) => btoa(String.fromCharCode(...prepare(drawing)))) }""",
        placed_drawings,
    )
    from_page = np.array([np.frombuffer(base64.b64decode(text), np.uint8) for text in encoded])
    is_right = trained.predict(from_page).digits == digits
    of_files = np.mean(
        [
            is_read(trained, drawing, pen, int(digit))
            for drawing, digit in zip(placed_drawings[:FILES], digits[:FILES], strict=True)
        ]
    )
    print(f"right: {is_right.mean():.1%} as the page prepares them, {of_files:.1%} as pictures")
    assert is_right.mean() >= RIGHT_MIN
    assert is_right[:FILES].mean() >= of_files - WORSE_MAX


def is_read(client: Client, drawing: Drawing, pen: float, digit: int) -> bool:
    """Return whether a picture of a drawing is read as its digit."""
    try:
        image = read_digit(picture(drawing, pen))
    except errors.InvalidInput:
        return False
    return bool(client.predict(image).digits[0] == digit)
