"""Images and labels: from arrays to what the wire carries, and the ones that the package ships."""

from __future__ import annotations

from importlib import resources
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnist37_client.errors import InvalidInput

SIDE = 28
PIXELS = SIDE * SIDE
ONE = ((SIDE, SIDE), (PIXELS,))  # the shapes of one image
UINT8 = np.dtype(np.uint8)


def to_images(images: ArrayLike) -> NDArray[np.uint8]:
    """Images as uint8 (N, 784), 0 = background, 255 = ink.

    Args:
        images: (N, 28, 28), (N, 784), or one image, (28, 28) or (784,). Whole numbers are pixels
            of 0..255; floats are pixels of 0..1, and are rounded to 255ths; True is ink.

    Raises:
        InvalidInput: another shape, another kind of numbers, or values out of range.
    """
    array = _array("images", images)
    one = array.shape in ONE
    many = array.ndim == 3 and array.shape[1:] == (SIDE, SIDE)
    many = many or (array.ndim == 2 and array.shape[1] == PIXELS)
    if not (one or many) or not array.size:
        raise InvalidInput(
            f"images: got shape {array.shape}; must be (N, 28, 28), (N, 784), or one image"
        )
    rows: NDArray[np.uint8] = _pixels(array).reshape(-1, PIXELS)
    return rows


def is_one_image(images: ArrayLike) -> TypeGuard[NDArray[np.uint8]]:
    """Whether it is one image as it goes out: the commonest case, in a tenth of the time."""
    return type(images) is np.ndarray and images.dtype == UINT8 and images.shape in ONE


def to_labels(labels: ArrayLike) -> bytes:
    """Labels, 1 = three and 0 = seven, one byte each.

    Raises:
        InvalidInput: they are not whole numbers of 0..255 in one row; which of those are right,
            and how many, the server knows.
    """
    array = _array("labels", labels)
    right = "must be 1 (a three) or 0 (a seven) for each image, in one row"
    if array.size != max(array.shape, default=1):  # a column, as the notes have it, is a row too
        raise InvalidInput(f"labels: got shape {array.shape}; {right}")
    if array.dtype.kind not in "iub":
        raise InvalidInput(f"labels: got {array.dtype}; {right}")
    wrong = array[(array < 0) | (array > 255)]
    if len(wrong):
        raise InvalidInput(f"labels: got {wrong[0]}; {right}")
    return array.astype(np.uint8).tobytes()


def validation_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 2,038 images that no model is trained on here: the server's validation set, in its order.

    Returns:
        Images (2038, 28, 28), and labels (2038,), 1 = three and 0 = seven.
    """
    with resources.files("mnist37").joinpath("images.npz").open("rb") as file:
        shipped = np.load(file)
        threes, sevens = shipped["valid_threes"], shipped["valid_sevens"]
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
    most = 1 if array.dtype.kind == "f" else 255
    if not np.all((array >= 0) & (array <= most)):  # false for NaN too
        raise InvalidInput(
            f"images: got values from {array.min()} to {array.max()}; whole numbers must be in"
            " 0..255, floats in 0..1"
        )
    rounded: NDArray[np.uint8] = np.rint(array * (255 // most)).astype(np.uint8)
    return rounded
