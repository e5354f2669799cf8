"""Preparation of a picture of a handwritten digit: the digit is found and put into MNIST's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist37_client.errors import InvalidInput
from mnist37_client.pictures.finding import NoStroke, find_digit
from mnist37_client.pictures.frames import without_frame
from mnist37_client.pictures.ink import SMALL, Picture, measure_ink
from mnist37_client.pictures.normal import has_mnists_form, normalise
from mnist37_client.pictures.reading import Shades, Source, read_shades

SIDE_MIN = 16  # pixels, where the longer side has at most some 720
CONTRAST_MIN = 12  # of 255, between paper and ink; a picture with less is blank


def read_digit(source: Source) -> NDArray[np.uint8]:
    """Read a picture of one digit and return it as an image like MNIST's: (28, 28), 255 = ink.

    The digit may be dark on light or light on dark, and the picture may be a photo. A picture that
    has MNIST's form already is returned as it is, light on black.

    Args:
        source: a path, the bytes of a file, a binary file, a picture of Pillow, or an array of
            shades or colours: whole numbers in 0..255 or floats in 0..1.

    Raises:
        InvalidInput: it cannot be read, or does not show one whole digit.
    """
    named = f"{source}: " if isinstance(source, (str, Path)) else "the picture: "
    try:
        return _prepared(read_shades(source))
    except InvalidInput as error:
        raise InvalidInput(f"{named}{error}") from None


def _prepared(shades: Shades) -> NDArray[np.uint8]:
    """Return the digit in the shades of grey; if none is found, in a colour or inside a frame."""
    grey = shades.grey
    for pixels in (grey.astype(np.uint8), (255 - grey).astype(np.uint8)):
        if has_mnists_form(pixels):
            return pixels
    try:
        return _found(grey)
    except InvalidInput as refused:
        # A frame's edge may be taken for a digit that the border cuts; a colour shows no frame.
        colour = shades.strongest_colour() if isinstance(refused, NoStroke) else None
        for other in (colour, without_frame(grey)):
            if other is not None:
                try:
                    return _found(other)
                except NoStroke:
                    continue
        raise


def _found(grey: Picture) -> NDArray[np.uint8]:
    if np.ptp(grey) < CONTRAST_MIN:
        raise NoStroke("no digit in it: the picture is blank")
    drawing = max(grey.shape) <= SMALL
    if drawing:
        grey = _enlarged(grey)
    elif min(grey.shape) < SIDE_MIN:
        raise InvalidInput("no digit in it: the picture is a strip")
    ink, noise = measure_ink(grey)
    return normalise(find_digit(ink, noise, drawing=drawing))


def _enlarged(grey: Picture) -> Picture:
    """Return a drawing of few pixels on more paper, and with more pixels."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    padded = np.pad(grey, max(grey.shape) // 4 + 1, constant_values=np.median(border))
    times = max(2, 300 // max(padded.shape))
    size = padded.shape[1] * times, padded.shape[0] * times
    enlarged = Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(enlarged).clip(0, 255)
