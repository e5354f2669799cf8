"""Conversion of images and labels to the wire format, and the validation images of the package."""

from __future__ import annotations

from importlib import resources
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnist37_client.errors import InvalidInput

SIDE = 28
PIXELS = SIDE * SIDE
ONE_IMAGE_SHAPES = ((SIDE, SIDE), (PIXELS,))
UINT8 = np.dtype(np.uint8)


def to_images(images: ArrayLike) -> NDArray[np.uint8]:
    """Return images as uint8 (N, 784), 0 = background, 255 = ink.

    Args:
        images: (N, 28, 28), (N, 784), or one image, (28, 28) or (784,). Integers are pixels in
            0..255. Floats are pixels in 0..1, which this function rounds to 255ths. True is ink.

    Raises:
        InvalidInput: the shape or the dtype is another one, or a value is out of range.
    """
    array = _array("images", images)
    is_one = array.shape in ONE_IMAGE_SHAPES
    is_batch = array.ndim == 3 and array.shape[1:] == (SIDE, SIDE)
    is_batch = is_batch or (array.ndim == 2 and array.shape[1] == PIXELS)
    if not (is_one or is_batch) or not array.size:
        raise InvalidInput(
            f"images: got shape {array.shape}; must be (N, 28, 28), (N, 784), or one image"
        )
    rows: NDArray[np.uint8] = _pixels(array).reshape(-1, PIXELS)
    return rows


def is_one_image(images: ArrayLike) -> TypeGuard[NDArray[np.uint8]]:
    """Return whether the argument is one uint8 image, which needs no conversion.

    This is the most common argument, and the test takes a tenth of the time of `to_images`.
    """
    return type(images) is np.ndarray and images.dtype == UINT8 and images.shape in ONE_IMAGE_SHAPES


def to_labels(labels: ArrayLike) -> bytes:
    """Return labels, 1 = three and 0 = seven, as one byte each.

    Raises:
        InvalidInput: the labels are not integers in 0..255 in one row. The server checks their
            number, and that each is 0 or 1.
    """
    array = _array("labels", labels)
    requirement = "must be 1 (a three) or 0 (a seven) for each image, in one row"
    if array.size != max(array.shape, default=1):  # a column (N, 1), as the book uses, is valid too
        raise InvalidInput(f"labels: got shape {array.shape}; {requirement}")
    if array.dtype.kind not in "iub":
        raise InvalidInput(f"labels: got {array.dtype}; {requirement}")
    outliers = array[(array < 0) | (array > 255)]
    if len(outliers):
        raise InvalidInput(f"labels: got {outliers[0]}; {requirement}")
    return array.astype(np.uint8).tobytes()


def validation_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the server's 2,038 validation images in the server's order, and their labels.

    No training run uses these images.

    Returns:
        Images, uint8 (2038, 28, 28), and labels, uint8 (2038,), 1 = three and 0 = seven.
    """
    with resources.files("mnist37").joinpath("images.npz").open("rb") as file:
        arrays = np.load(file)
        threes, sevens = arrays["valid_threes"], arrays["valid_sevens"]
    labels = np.repeat(np.array([1, 0], np.uint8), (len(threes), len(sevens)))
    return np.concatenate([threes, sevens]), labels


def _array(name: str, values: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:
        raise InvalidInput(f"{name}: got rows of different lengths; must be an array") from None


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind not in "iuf":
        raise InvalidInput(f"images: got {array.dtype}; must be numbers")
    maximum = 1 if array.dtype.kind == "f" else 255
    if not np.all((array >= 0) & (array <= maximum)):  # false for NaN too
        raise InvalidInput(
            f"images: got values from {array.min()} to {array.max()}; whole numbers must be in"
            " 0..255, floats in 0..1"
        )
    pixels: NDArray[np.uint8] = np.rint(array * (255 // maximum)).astype(np.uint8)
    return pixels
