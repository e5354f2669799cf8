"""Tests of the conversion of images and labels: accepted forms, results, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mnist37_client import InvalidInput, Mnist37Error, validation_images
from mnist37_client.images import to_images, to_labels
from numpy.typing import DTypeLike, NDArray

FORMS = [(1, 28, 28), (3, 28, 28), (1, 784), (3, 784), (28, 784), (28, 28), (784,)]
WHOLE = ["uint8", "int8", "int64", "uint64", ">i4"]
FLOATS = ["float16", "float32", "float64", ">f4", "longdouble"]


def pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array with the values 0..255, repeated."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)


@pytest.mark.parametrize("shape", FORMS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int64", *FLOATS])
def test_every_form_becomes_rows_of_uint8(shape: tuple[int, ...], dtype: str) -> None:
    given = pixels(shape)
    images = (given / 255 if np.dtype(dtype).kind == "f" else given).astype(dtype)
    rows = to_images(images)
    assert rows.dtype == np.uint8
    assert rows.shape == (given.size // 784, 784)
    np.testing.assert_array_equal(rows, given.reshape(-1, 784))


@pytest.mark.parametrize("dtype", WHOLE)
def test_integers_of_every_type_are_accepted(dtype: str) -> None:
    given = pixels((2, 784)) % 128
    np.testing.assert_array_equal(to_images(given.astype(dtype)), given)


def test_a_bool_image_is_ink_where_it_is_true() -> None:
    drawn = pixels((28, 28)) > 127
    np.testing.assert_array_equal(to_images(drawn), drawn.reshape(1, 784) * 255)


def test_the_ends_of_each_range_are_accepted() -> None:
    ends = np.zeros((2, 784))
    ends[1] = 1
    np.testing.assert_array_equal(to_images(ends)[:, 0], [0, 255])
    np.testing.assert_array_equal(to_images((255 * ends).astype(np.int64))[:, 0], [0, 255])
    np.testing.assert_array_equal(to_images(-0.0 * ends)[:, 0], [0, 0])


def test_nested_lists_are_accepted() -> None:
    given = pixels((2, 28, 28))
    np.testing.assert_array_equal(to_images(given.tolist()), given.reshape(2, 784))


@pytest.mark.parametrize(
    "images",
    [
        pixels((6, 28, 28))[::2],
        pixels((3, 28, 28)).transpose(0, 2, 1),
        np.asfortranarray(pixels((3, 784))),
        np.broadcast_to(pixels((784,)), (3, 784)),
    ],
    ids=["strided", "transposed", "column by column", "broadcast"],
)
def test_the_layout_in_memory_does_not_matter(images: NDArray[np.uint8]) -> None:
    rows = to_images(images)
    np.testing.assert_array_equal(rows, images.reshape(3, 784))
    assert rows.tobytes() == images.copy(order="C").tobytes()


def test_the_callers_array_is_not_changed() -> None:
    given = pixels((2, 784)) / 255
    kept = given.copy()
    to_images(given)
    np.testing.assert_array_equal(given, kept)


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(784))),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_uint8_as_floats_comes_back_the_same(given: NDArray[np.uint8], dtype: str) -> None:
    np.testing.assert_array_equal(to_images((given / 255).astype(dtype)), given)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, 784, elements=st.floats(0, 1)))
def test_floats_are_rounded_to_the_nearest_255th(given: NDArray[np.float64]) -> None:
    assert np.abs(to_images(given)[0] - 255 * given).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (1,),
        (783,),
        (785,),
        (784, 1),
        (2, 783),
        (28, 27),
        (27, 28),
        (2, 28, 27),
        (0, 784),
        (0, 28, 28),
        (1, 1, 28, 28),
        (2, 28, 28, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_another_shape_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(InvalidInput, match=r"^images: ") as refused:
        to_images(np.zeros(shape, dtype))
    assert f"got shape {shape}" in str(refused.value)
    assert "(N, 28, 28), (N, 784), or one image" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.nan, "float16"),
        (np.nan, "float32"),
        (np.nan, "float64"),
        (np.inf, "float32"),
        (-np.inf, "float64"),
        (-0.5, "float32"),
        (1.5, "float16"),
        (1.5, "float64"),
        (255.0, "float32"),
        (256, "int64"),
        (256, "uint16"),
        (-1, "int8"),
        (-1, "int64"),
    ],
)
@pytest.mark.parametrize("place", [0, 783])
def test_a_value_out_of_range_is_refused(value: float, dtype: str, place: int) -> None:
    images = np.zeros((2, 784), dtype)
    images[1, place] = value
    with pytest.raises(InvalidInput, match=r"^images: ") as refused:
        to_images(images)
    assert f"{images[1, place]}" in str(refused.value)
    assert "whole numbers must be in 0..255, floats in 0..1" in str(refused.value)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "U1", "S1", "object", "M8[s]"])
def test_images_that_are_not_numbers_are_refused(dtype: DTypeLike) -> None:
    with pytest.raises(InvalidInput, match=r"^images: ") as refused:
        to_images(np.zeros((1, 784), dtype))
    assert f"got {np.dtype(dtype)}" in str(refused.value)
    assert "must be " in str(refused.value)


@pytest.mark.parametrize("images", ["a picture", None, {"pixels": 1}, [[0] * 784, [0] * 783]])
def test_images_that_are_not_an_array_are_refused(images: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^images: got .*must be "):
        to_images(images)


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 1],
        (True, False, True),
        np.array([1, 0, 1], np.uint8),
        np.array([1, 0, 1], np.int64),
        np.array([1, 0, 1], ">i2"),
        np.array([True, False, True]),
        np.array([[1], [0], [1]]),
        np.array([1, 9, 0, 9, 1, 9])[::2],
    ],
    ids=["list", "tuple", "uint8", "int64", ">i2", "bool", "column", "strided"],
)
def test_labels_of_every_kind_become_a_byte_each(labels: Any) -> None:
    assert to_labels(labels) == b"\1\0\1"


@given(arrays(np.uint8, st.integers(1, 50)))
def test_labels_that_only_the_server_can_judge_pass(labels: NDArray[np.uint8]) -> None:
    assert to_labels(labels.astype(np.int64)) == labels.tobytes()


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        ([0, 256], "256"),
        ([0, -1], "-1"),
        ([0, 10**6], "1000000"),
        ([0.0, 1.0], "float64"),
        (np.array([0, 1], np.float32), "float32"),
        ([0, np.nan], "float64"),
        ([0, np.inf], "float64"),
        ([0, 1j], "complex128"),
        (["3", "7"], "<U1"),
        ([3, None], "object"),
    ],
    ids=str,
)
def test_other_labels_are_refused(labels: Any, came: str) -> None:
    with pytest.raises(InvalidInput, match=r"^labels: .*1 \(a three\) or 0 \(a seven\)") as refused:
        to_labels(labels)
    assert came in str(refused.value)


@pytest.mark.parametrize("labels", [[[0, 1], [0, 1]], [[0, 1], [0]]], ids=["table", "ragged"])
def test_labels_that_are_not_in_one_row_are_refused(labels: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^labels: "):
        to_labels(labels)


def test_invalid_input_is_a_value_error_and_an_error_of_the_client() -> None:
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(InvalidInput, Mnist37Error)


def test_the_validation_images_are_mnists() -> None:
    images, labels = validation_images()
    assert images.shape == (2038, 28, 28)
    assert labels.shape == (2038,)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [1028, 1010]
    assert (np.diff(labels.astype(np.int8)) <= 0).all()  # the threes, then the sevens
    assert images.min(axis=(1, 2)).max() == 0  # background around every digit
    assert images.max(axis=(1, 2)).min() > 200  # and ink in every digit
    assert len(np.unique(images.reshape(-1, 784), axis=0)) == 2038


def test_each_caller_gets_a_copy_of_the_validation_images() -> None:
    images, labels = validation_images()
    images[:], labels[:] = 0, 0
    images, labels = validation_images()
    assert images.any()
    assert labels.any()
