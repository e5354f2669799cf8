"""Conversion of images, labels and parameters to the wire format, and the package's images."""

from __future__ import annotations

import reprlib
import sys
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnist37_client.errors import InvalidInput, one_line

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
        InvalidInput: the shape or the dtype is another one, a value is out of range, or all
            integers are 0 or 1: then 1 may mean ink, or all but paper.
    """
    array = to_array("images", images)
    is_one = array.shape in ONE_IMAGE_SHAPES
    is_batch = array.ndim == 3 and array.shape[1:] == (SIDE, SIDE)
    is_batch = is_batch or (array.ndim == 2 and array.shape[1] == PIXELS)
    if not (is_one or is_batch) or not array.size:
        raise InvalidInput(
            f"images: got shape {array.shape}; must be (N, 28, 28), (N, 784), or one image"
        )
    rows: NDArray[np.uint8] = _pixels(array).reshape(-1, PIXELS)
    return rows


def one_image_bytes(images: ArrayLike) -> bytes | None:
    """Return the 784 bytes of an image in uint8; None if the argument needs `to_images`.

    This is the most common argument, and it takes a tenth of the time of `to_images`.
    """
    if (
        type(images) is np.ndarray
        and images.dtype is UINT8
        and images.shape in ONE_IMAGE_SHAPES
        and (pixels := images.tobytes()).lstrip(b"\0\1")  # 0 and 1 alone: see `to_images`
    ):
        return pixels
    return None


def to_labels(labels: ArrayLike) -> bytes:
    """Return labels, 1 = three and 0 = seven, as one byte each.

    Raises:
        InvalidInput: the labels are not integers in 0..255 in one row. The server checks their
            number, and that each is 0 or 1.
    """
    array = to_array("labels", labels)
    requirement = "must be 1 (a three) or 0 (a seven) for each image, in one row"
    if array.size != max(array.shape, default=1):  # a column (N, 1), as the book uses, is valid too
        raise InvalidInput(f"labels: got shape {array.shape}; {requirement}")
    if array.dtype.kind not in "iub":
        raise InvalidInput(f"labels: got {array.dtype}; {requirement}")
    outliers = array[(array < 0) | (array > 255)]
    if len(outliers):
        raise InvalidInput(f"labels: got {outliers[0]}; {requirement}")
    return array.astype(np.uint8).tobytes()


def to_parameters(name: str, values: ArrayLike, count: int) -> NDArray[np.float32]:
    """Return weights or the bias as little-endian float32 (count,).

    Raises:
        InvalidInput: they are not so many numbers. The server checks that they are finite.
    """
    array = to_array(name, values)
    if array.size != count or array.dtype.kind not in "iuf":
        raise InvalidInput(
            f"{name}: got {array.dtype} of shape {array.shape}; must be {count} numbers"
        )
    with np.errstate(over="ignore"):  # too large a value becomes inf, which the server refuses
        return array.reshape(-1).astype("<f4")


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


def to_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return an argument as an array.

    A tensor of torch may be on any device, of any layout and dtype, and may require grad.

    Args:
        name: of the argument, for the error.
        values: an array, numbers in nested sequences, a tensor, or what has `__array__`.

    Raises:
        InvalidInput: the argument is no array, or is masked.
    """
    torch: Any = sys.modules.get("torch")  # not imported: without it there are no tensors
    try:
        if torch is not None and isinstance(values, torch.Tensor):
            values = _from_torch(values)
        array: NDArray[Any] = np.asarray(values)
    # Whatever has `__array__` may raise anything.
    except Exception as error:
        reason = "rows of different lengths" if "inhomogeneous" in str(error) else str(error)
        reason = one_line(reason or type(error).__name__)
        kind = type(values).__name__
        raise InvalidInput(f"{name}: got {kind}: {reason}; must be an array") from error
    if "numpy.ma" in sys.modules and _is_masked(values):  # nor is this imported for nothing
        raise InvalidInput(f"{name}: got masked values; must be an array without them")
    if array.dtype == object and not array.ndim:
        raise InvalidInput(f"{name}: got {reprlib.repr(values)}; must be an array")
    return array


def _from_torch(tensor: Any) -> ArrayLike:  # noqa: ANN401 - the client knows no torch
    """Return a tensor that numpy can read."""
    tensor = tensor.detach().cpu().to_dense()
    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:  # numpy has no bfloat16
        tensor = tensor.float()
    return tensor  # type: ignore[no-any-return]


def _is_masked(values: object) -> bool:
    """Return whether an array, or one in a list, has masked values; numpy would ignore the mask."""
    if isinstance(values, list | tuple):
        return any(map(_is_masked, values))
    return isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values)


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.kind not in "iuf":
        raise InvalidInput(f"images: got {array.dtype}; must be numbers")
    maximum = 1 if array.dtype.kind == "f" else 255
    if array.dtype != UINT8 and not np.all((array >= 0) & (array <= maximum)):  # NaN is neither
        raise InvalidInput(
            f"images: got values from {array.min()} to {array.max()}; whole numbers must be in"
            " 0..255, floats in 0..1"
        )
    if array.dtype.kind != "f" and array.max() == 1:
        raise InvalidInput(
            "images: got whole numbers that are all 0 or 1; must be in 0..255, or bool or floats"
            " if 1 means ink"
        )
    if array.dtype == UINT8:
        return array
    pixels: NDArray[np.uint8] = np.rint(array * (255 // maximum)).astype(np.uint8)
    return pixels
