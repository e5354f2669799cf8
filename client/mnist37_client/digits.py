"""Preparation of a picture of a handwritten digit in the way of MNIST.

The authors of MNIST scaled each digit to fit a box of 20 x 20 pixels, kept its aspect ratio, and
put it into 28 x 28 pixels with its centre of mass in the middle (LeCun, Cortes, Burges: The MNIST
database).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist37_client.errors import InvalidInput
from mnist37_client.images import SIDE

BOX = 20  # pixels
PAPER_INK_MAX = 0.2  # ink fainter than this share of the strongest ink counts as paper
FORMATS = ("PNG", "JPEG")
PIXELS_MAX = 50_000_000
CONTRAST_MIN = 0.1  # between paper and ink, as a share of 255; a picture with less is blank

Picture = NDArray[np.float64]  # (height, width)


def read_digit(path: Path) -> NDArray[np.uint8]:
    """Read a PNG or JPEG file and return its digit as an image like MNIST's: (28, 28), 255 = ink.

    The digit may be dark on light or light on dark, and the picture may have any size. A picture
    of 28 x 28 pixels, light on black, is returned as it is, because it has MNIST's form already.

    Raises:
        InvalidInput: the file cannot be read, is not a picture, or is blank.
    """
    try:
        # Pillow warns of damaged EXIF data and of many pixels; neither concerns the digit.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > PIXELS_MAX:
                raise InvalidInput(f"{path}: the picture has more than {PIXELS_MAX:,} pixels")
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except UnidentifiedImageError:
        raise InvalidInput(f"{path}: not a picture that can be read; give a PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise InvalidInput(f"{path}: the picture has more than {PIXELS_MAX:,} pixels") from None
    except InvalidInput:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"{path}: cannot be read: {reason}") from None
    greys = [flatten_to_grey(picture, paper) for paper in ("white", "black")]
    grey = (
        greys[0] if np.ptp(greys[0]) else greys[1]
    )  # white ink without a background shows on black
    if grey.shape == (SIDE, SIDE) and not np.median(_border(grey)) and grey.any():
        return grey.astype(np.uint8)
    try:
        return center(fit_to_box(estimate_ink(grey)))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def flatten_to_grey(picture: Image.Image, paper: str) -> Picture:
    """Return a picture on paper of the given colour as shades of grey, 0 = black, 255 = white."""
    if picture.mode.startswith("I"):  # 16 bits a pixel; `convert` would clip at 255
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    colours = picture.convert("RGBA")
    background = Image.new("RGBA", colours.size, paper)
    return np.asarray(Image.alpha_composite(background, colours).convert("L"), np.float64)


def estimate_ink(grey: Picture) -> Picture:
    """Return the amount of ink at each pixel, 0 to 1; the median of the border is the paper.

    Raises:
        InvalidInput: the picture is blank.
    """
    distance = grey - np.median(_border(grey))
    # A digit is either darker or lighter than its paper as a whole; the rest is shadow and noise.
    ink = max(distance.clip(min=0), (-distance).clip(min=0), key=np.max)
    if ink.max() < CONTRAST_MIN * 255:
        raise InvalidInput("no digit in it: the picture is blank")
    ink /= ink.max()
    ink[ink < PAPER_INK_MAX] = 0
    return ink


def fit_to_box(ink: Picture) -> Picture:
    """Return the digit without its margins, scaled to fit the box of 20 x 20 pixels."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = digit.shape
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(digit.astype(np.float32))
    thumbnail = np.asarray(
        picture.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    # Scaling down keeps the full ink of a thick line, but dilutes a thin one: restore the maximum.
    return np.asarray(thumbnail / thumbnail.max(), np.float64).clip(0, 1)


def center(digit: Picture) -> NDArray[np.uint8]:
    """Return the digit in 28 x 28 pixels, its centre of mass as near to the middle as it fits."""
    height, width = digit.shape
    total = digit.sum()
    middle_row = (digit.sum(axis=1) @ np.arange(height)) / total
    middle_column = (digit.sum(axis=0) @ np.arange(width)) / total
    top = int(np.clip(round(SIDE / 2 - middle_row), 0, SIDE - height))
    left = int(np.clip(round(SIDE / 2 - middle_column), 0, SIDE - width))
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(digit * 255)
    return image


def _border(grey: Picture) -> Picture:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
