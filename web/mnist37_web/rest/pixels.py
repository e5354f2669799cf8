"""The values of a tensor in JSON, as the bytes that the server takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from mnist37_client.images import PIXELS

from mnist37_web.access.json_bodies import show
from mnist37_web.errors import HttpError, bad_request

INPUT = "pixels"
FIELD = f"{INPUT}.data"
BLOCK = 4_096  # values
ONE_IMAGE = ([784], [28, 28])  # the shapes of one image

Rows = list[list[Any]]


def parse_shape(shape: object) -> list[int]:
    """Return a shape; raise HttpError unless it is [N, 784] or [N, 28, 28]."""
    if isinstance(shape, list) and shape[1:] in ONE_IMAGE:
        images = shape[0]
        if type(images) is int and images >= 1 and set(map(type, shape)) == {int}:
            return shape
    got = "missing" if shape is None else f"got {show_shape(shape)}"
    raise bad_request(f"{INPUT}.shape: {got}; must be [N, 784] or [N, 28, 28] with N at least 1")


def show_shape(shape: object) -> str:
    """Return what should be a shape, for an error's text."""
    if isinstance(shape, list) and len(shape) <= 4:
        return f"[{', '.join(map(show, shape))}]"
    return show(shape)


def to_bytes(data: object, shape: list[int], has_words: bool) -> bytes:
    """Return the pixels of UINT8 that are numbers in JSON.

    Args:
        data: a list of all pixels, or lists in lists as the shape says.
        shape: of the tensor, a valid one.
        has_words: whether `true` or `false` may be among them, which Python takes for 1 and 0.

    Raises:
        HttpError: the data have another form, or a value is none of a pixel.
    """
    rows = list_rows(data, shape)
    try:
        pixels = bytes(rows[0]) if len(rows) == 1 else b"".join(map(bytes, rows))
    except (TypeError, ValueError):  # no whole number, or one that is not in 0..255
        raise wrong_value(rows, are_bytes, "a whole number from 0 to 255") from None
    if has_words and any(bool in set(map(type, row)) for row in rows):
        raise wrong_value(rows, are_bytes, "a whole number from 0 to 255")
    return pixels


def to_floats(data: object, shape: list[int]) -> memoryview:
    """Return the pixels of FP32 that are numbers in JSON, as little-endian float32.

    Args:
        data: a list of all pixels, or lists in lists as the shape says.
        shape: of the tensor, a valid one.

    Raises:
        HttpError: the data have another form, or a value is no number. The server checks the range.
    """
    rows = list_rows(data, shape)
    if not all(map(are_numbers, rows)):
        raise wrong_value(rows, are_numbers, "a number from 0 to 1")
    values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    with np.errstate(over="ignore"):  # what becomes infinite, the server refuses
        return np.array(values, "<f4").data.cast("B")


def list_rows(data: object, shape: list[int]) -> Rows:
    """Return the data as a list of lists of values; raise HttpError unless they fit the shape."""
    if not isinstance(data, list):
        got = "missing" if data is None else f"got {show(data)}"
        raise bad_request(f"{FIELD}: {got}; must be a list of numbers")
    size = shape[0] * PIXELS
    if len(data) == size and not isinstance(data[0], list):
        return [data]
    rows: Rows = [data]
    if not data or not isinstance(data[0], list):
        raise bad_request(f"{FIELD}: got {len(data):,} values; must be {size:,} for shape {shape}")
    for dimension in shape[:-1]:
        check_lengths(rows, dimension, shape)
        rows = list(chain.from_iterable(rows))
        if set(map(type, rows)) != {list}:
            raise bad_request(f"{FIELD}: got values among lists; must have the form {shape}")
    check_lengths(rows, shape[-1], shape)
    return rows


def check_lengths(rows: Rows, length: int, shape: list[int]) -> None:
    """Raise HttpError unless all lists have a length."""
    if set(map(len, rows)) != {length}:
        wrong = next(len(row) for row in rows if len(row) != length)
        raise bad_request(
            f"{FIELD}: got a list of {wrong:,}; must be of {length:,} for shape {shape}, or all"
            " values in one list"
        )


def are_bytes(values: list[Any]) -> bool:
    """Return whether all values are pixels of UINT8."""
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= 255


def are_numbers(values: list[Any]) -> bool:
    """Return whether all values may be pixels of FP32."""
    return set(map(type, values)) <= {int, float}


def wrong_value(rows: Rows, are_right: Callable[[list[Any]], bool], what: str) -> HttpError:
    """Return the error for the first value that is wrong."""
    number = 0
    for row in rows:
        for start in range(0, len(row), BLOCK):  # a million values one by one take 0.2 s
            block = row[start : start + BLOCK]
            if are_right(block):
                number += len(block)
                continue
            index = next(index for index, value in enumerate(block) if not are_right([value]))
            number += index
            place = f"pixel {number % PIXELS} of image {number // PIXELS:,}"
            return bad_request(f"{FIELD}: got {show(block[index])} for {place}; must be {what}")
    raise AssertionError("all values are right")
