"""Any picture of a handwritten digit, prepared as the images of MNIST were.

MNIST's makers scaled each digit to fit a box of 20 x 20 pixels, keeping its shape, and put it into
28 x 28 with its centre of mass in the middle (LeCun, Cortes, Burges: The MNIST database).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist37_client.errors import InvalidInput
from mnist37_client.images import SIDE

BOX = 20
# What is fainter than this, as a share of the darkest ink, is paper, not ink.
PAPER = 0.2
FORMATS = ("PNG", "JPEG")
PIXELS_MAX = 50_000_000
CONTRAST_MIN = 0.1  # between paper and ink; below, the picture is blank

Picture = NDArray[np.float64]  # (height, width)


def read_digit(path: Path) -> NDArray[np.uint8]:
    """The picture in a PNG or JPEG file, as an image of MNIST: (28, 28), 255 = ink.

    The digit may be dark on light or light on dark, and the picture of any size. One of 28 x 28,
    light on black, is taken to be of MNIST's kind already.

    Raises:
        InvalidInput: the file cannot be read, is no picture, or shows nothing.
    """
    try:
        # Of what Pillow warns of here (damaged EXIF, many pixels), nothing concerns the digit.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > PIXELS_MAX:
                raise InvalidInput(f"{path}: the picture has more than {PIXELS_MAX:,} pixels")
            upright = ImageOps.exif_transpose(file)
            upright.load()
    except UnidentifiedImageError:
        raise InvalidInput(f"{path}: not a picture that can be read; give a PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise InvalidInput(f"{path}: the picture has more than {PIXELS_MAX:,} pixels") from None
    except InvalidInput:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"{path}: cannot be read: {reason}") from None
    greys = [flatten_to_grey(upright, paper) for paper in ("white", "black")]
    grey = greys[0] if np.ptp(greys[0]) else greys[1]  # white ink on nothing shows on black
    if grey.shape == (SIDE, SIDE) and not np.median(_border(grey)) and grey.any():
        return grey.astype(np.uint8)
    try:
        return center(fit_to_box(estimate_ink(grey)))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def flatten_to_grey(picture: Image.Image, paper: str) -> Picture:
    """The picture in shades of grey, 0 = black, 255 = white, laid on paper of a colour."""
    if picture.mode.startswith("I"):  # 16 bits a pixel, which convert would clip at 255
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    colours = picture.convert("RGBA")
    below = Image.new("RGBA", colours.size, paper)
    return np.asarray(Image.alpha_composite(below, colours).convert("L"), np.float64)


def estimate_ink(grey: Picture) -> Picture:
    """How much ink is at each place, 0 to 1; the paper is what most of the border shows.

    Raises:
        InvalidInput: there is none.
    """
    distance = grey - np.median(_border(grey))
    # A digit is either all darker or all lighter than its paper; shadows and noise are the rest.
    found = max(distance.clip(min=0), (-distance).clip(min=0), key=np.max)
    if found.max() < CONTRAST_MIN * 255:
        raise InvalidInput("no digit in it: the picture is blank")
    found /= found.max()
    found[found < PAPER] = 0
    return found


def fit_to_box(found: Picture) -> Picture:
    """The digit alone, scaled to fit the box of 20 x 20."""
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    digit = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = digit.shape
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(digit.astype(np.float32))
    scaled = np.asarray(
        picture.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    # A thick pen's line keeps its full ink when it is scaled down, a thin one's is spread out.
    return np.asarray(scaled / scaled.max(), np.float64).clip(0, 1)


def center(digit: Picture) -> NDArray[np.uint8]:
    """28 x 28 with the digit's centre of mass in the middle, as far as it fits."""
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
