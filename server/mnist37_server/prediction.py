"""Images to probabilities, on the CPU: the same bits for an image alone, in any batch, anywhere.

A matrix-vector product rounds a row differently depending on how many rows there are. So every
product here has BLOCK rows, the last of them filled up with empty images. BLOCK is also small
enough that the linear algebra library never splits a product between cores.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

BLOCK = 8  # rows of one product
CHUNK = 64  # rows that are converted to floats at a time: 200 kB, which stays in the cache

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class _Scratch(threading.local):
    """Room for one chunk of images as floats, for each thread its own."""

    def __init__(self) -> None:
        self.rows = np.empty((CHUNK, 784), np.float32)


_scratch = _Scratch()


def pixel_weights(weights: Floats) -> Floats:
    """Weights (784,) for pixels of 0..255 instead of 0..1; saves scaling every image."""
    return (weights.astype(np.float64) / 255).astype(np.float32)


def predict(weights: Floats, bias: np.float32, images: Pixels) -> Floats:
    """The probability, for each image, that it is a 3: sigmoid(images @ weights + bias).

    Args:
        weights: (784,), from pixel_weights.
        bias: a scalar.
        images: (N, 784), 0..255.

    Returns:
        (N,).
    """
    count = len(images)
    scores = np.empty(-(-count // BLOCK) * BLOCK, np.float32)
    rows = _scratch.rows
    for start in range(0, count, CHUNK):
        chunk = images[start : start + CHUNK]
        filled = len(chunk)
        padded = -(-filled // BLOCK) * BLOCK
        np.copyto(rows[:filled], chunk)
        rows[filled:padded] = 0
        blocks = rows[:padded].reshape(-1, BLOCK, 784)
        np.matmul(blocks, weights, out=scores[start : start + padded].reshape(-1, BLOCK))
    return sigmoid(scores[:count] + bias)


def sigmoid(scores: Floats) -> Floats:
    """1 / (1 + exp(-scores)), in place; a large negative score is a probability of 0."""
    with np.errstate(over="ignore"):
        np.negative(scores, out=scores)
        np.exp(scores, out=scores)
    scores += 1
    return np.reciprocal(scores, out=scores)
