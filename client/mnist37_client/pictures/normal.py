"""MNIST's form: a digit in a box of 20 x 20 pixels, its centre of mass in the middle of 28 x 28.

The authors of MNIST scaled each digit to fit the box, kept its aspect ratio, and centred it by its
mass (LeCun, Cortes, Burges: The MNIST database).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mnist37_client.images import SIDE
from mnist37_client.pictures.ink import Picture

BOX = 20  # pixels
THIN = 1.9  # pixels of the box; a thinner stroke is widened to this


def has_mnists_form(grey: NDArray[np.uint8]) -> bool:
    """Return whether a picture is light on black, boxed and centred as MNIST's images are."""
    if grey.shape != (SIDE, SIDE) or not grey.any():
        return False
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    if max(np.ptp(rows), np.ptp(columns)) >= BOX:
        return False
    return max(abs(middle - SIDE / 2) for middle in _centre(grey.astype(np.float64))) <= 0.5


def normalise(ink: Picture) -> NDArray[np.uint8]:
    """Return the digit, 0 to 1, without its margins, in MNIST's form."""
    solid = ink > 0.5
    box = _inside(solid if solid.any() else ink > 0)
    digit = ink[box]
    size = max(digit.shape)
    scale = BOX / size
    widening = round((THIN - stroke_width(digit > 0.5) * scale) / scale / 2)
    if widening > 0:
        digit = np.pad(digit, widening)
        widened = Image.fromarray(np.rint(digit * 255).astype(np.uint8))
        for _ in range(widening):
            widened = widened.filter(ImageFilter.MaxFilter(3))
        digit = np.asarray(widened, np.float32) / np.float32(255)
    height, width = digit.shape
    scale = BOX / max(height, width)
    size_in_box = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    thumbnail = np.asarray(Image.fromarray(digit).resize(size_in_box, method))
    return _centred((thumbnail / max(thumbnail.max(), 1e-6)).clip(0, 1))


def stroke_width(mask: NDArray[np.bool_]) -> float:
    """Return the typical width of a shape's strokes: twice its area by its outline."""
    padded = np.pad(mask, 1).astype(np.int8)
    steps = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    # A slanted outline takes 4/pi more steps than its length.
    return float(2 * mask.sum() / max(steps * np.pi / 4, 1))


def _inside(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _centre(image: NDArray[np.float64]) -> tuple[float, float]:
    """Return the row and the column of an image's centre of mass."""
    places = np.arange(max(image.shape))
    rows, columns = image.sum(axis=1), image.sum(axis=0)
    total = image.sum()
    return float(rows @ places[: len(rows)] / total), float(
        columns @ places[: len(columns)] / total
    )


def _centred(digit: Picture) -> NDArray[np.uint8]:
    """Return the digit in 28 x 28 pixels, its centre of mass as near to the middle as it fits."""
    height, width = digit.shape
    row, column = _centre(digit.astype(np.float64))
    top = int(np.clip(round(SIDE / 2 - row), 0, SIDE - height))
    left = int(np.clip(round(SIDE / 2 - column), 0, SIDE - width))
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(digit * 255)
    return image
