"""Tests of the images: their number and order, and the ways to read them, which must agree."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mnist37 import data, prepare


def test_the_numbers_and_values_of_the_images() -> None:
    found = data.load()
    assert found.train_x.shape == (12396, 784)
    assert found.valid_x.shape == (2038, 784)
    assert found.train_x.dtype == torch.float32
    assert found.train_x.min() == 0
    assert found.train_x.max() == 1
    assert found.train_y.sum() == 6131
    assert found.valid_y.sum() == 1010
    assert found.train_y[:6131].all()
    assert found.valid_y[:1010].all()


def write_idx(path: Path, magic: int, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(root: Path) -> None:
    """Write the shipped images as MNIST's original files, with another digit between them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    shipped = data.load_shipped()
    for split, prefix in (("train", "train"), ("valid", "t10k")):
        threes, sevens = shipped[f"{split}_threes"], shipped[f"{split}_sevens"]
        count = len(threes) + len(sevens) + 10
        by_name = sorted(range(count), key=lambda index: f"{index}.png")
        labels = np.full(count, 5, np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        for digit, pictures in ((3, threes), (7, sevens)):
            places = [i for i in by_name if labels[i] == 5][: len(pictures)]
            labels[places], images[places] = digit, pictures
        write_idx(raw / f"{prefix}-images-idx3-ubyte", 2051, images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", 2049, labels)


def assert_same(found: data.Data, expected: data.Data) -> None:
    assert torch.equal(found.train_x, expected.train_x)
    assert torch.equal(found.train_y, expected.train_y)
    assert torch.equal(found.valid_x, expected.valid_x)
    assert torch.equal(found.valid_y, expected.valid_y)


def test_torchvision_reads_the_same_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert_same(data.load(tmp_path), data.load())


def test_a_folder_without_mnist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not found"):
        data.load(tmp_path)


def test_prepare_refuses_files_that_are_not_the_original_ones(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: MD5 .* the original file has"):
        prepare.prepare(tmp_path, tmp_path / "out.npz")


originals = pytest.mark.skipif(
    "MNIST37_ORIGINALS" not in os.environ,
    reason="MNIST37_ORIGINALS names no folder with the four original MNIST files",
)


@originals
def test_prepare_reproduces_the_shipped_file(tmp_path: Path) -> None:
    made = tmp_path / "images.npz"
    counts = prepare.prepare(Path(os.environ["MNIST37_ORIGINALS"]), made)
    assert list(counts.values()) == [6131, 6265, 1010, 1028]
    shipped = Path(prepare.__file__).with_name("images.npz")
    assert made.read_bytes() == shipped.read_bytes()


@originals
def test_torchvision_reads_the_same_from_the_original_files(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    raw = Path(os.environ["MNIST37_ORIGINALS"]).resolve()
    (tmp_path / "MNIST" / "raw").symlink_to(raw, target_is_directory=True)
    assert_same(data.load(tmp_path), data.load())
