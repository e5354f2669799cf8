"""The arithmetic on the CPU: plain loops over the pixels, which numba compiles for the machine.

Each image is read once, as the bytes it came as, and its floats never leave the registers; so an
epoch takes little longer than reading the images. No kernel holds Python's lock while it runs.

The compiler may add the products of one image in another order than they are written in (by its
vectors), the same for every image: so an image scores the same to the bit alone and in any batch,
and the bits depend on the kind of processor and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from mnist37.losses import LOSS_UNIT

Pixels = NDArray[np.uint8]  # (N, 784), 0 = background, 255 = ink
Labels = NDArray[np.uint8]  # (N,), 1 = three, 0 = seven
Floats = NDArray[np.float32]

# POSIX's. A thread that only computes is left on its core for milliseconds, and who wakes up there
# for a moment's work waits. So training offers its core to them again and again.
_yield_core = types.ExternalFunction("sched_yield", types.int32())
IMAGES_AT_A_TIME = 256  # until then; some 30 us

_ONE = np.float32(1)
_INK = np.float32(255)

F = TypeVar("F", bound=Callable[..., Any])


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # 1 / (1 + inf) is 0
    "fastmath": {"reassoc", "contract", "nsz"},  # what it takes to use vectors; NaN stays NaN
}


def inlined(function: F) -> F:
    """Makes a function a part of the kernels that call it."""
    part: Any = numba.njit(**OPTIONS)(function)
    return cast(F, part)


def kernel(signature: object) -> Callable[[F], F]:
    """Compiles a function for these types of arguments, or takes what was compiled before."""

    def compiled(function: F) -> F:
        made: Any
        try:
            made = numba.njit(signature, cache=True, **OPTIONS)(function)
        except RuntimeError as error:
            # On a read-only system there may be no folder that could keep the machine code.
            if "cannot cache" not in str(error):
                raise
            made = numba.njit(signature, **OPTIONS)(function)
        return cast(F, made)

    return compiled


def _array(dtype: types.Type, dimensions: int, *, readonly: bool = True) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_PIXELS = _array(types.uint8, 2)
_FLOATS = _array(types.float32, 2)
_LABELS = _array(types.uint8, 1)
_ORDER = _array(types.int64, 1)
_PARAMETERS = _array(types.float32, 1)
_WRITABLE = _array(types.float32, 1, readonly=False)


@inlined
def _weighted_sum(image: Pixels | Floats, weights: Floats) -> np.float32:
    total = np.float32(0)
    for pixel in range(784):
        total += np.float32(image[pixel]) * weights[pixel]
    return total


@inlined
def _sigmoid(score: np.float32) -> np.float32:
    return _ONE / (_ONE + np.float32(math.exp(-score)))


@inlined
def _loss(probability: np.float32, label: np.uint8) -> np.int64:
    """In LOSS_UNITs."""
    loss = 1 - np.float64(probability) if label else np.float64(probability)
    return np.int64(np.rint(loss / LOSS_UNIT))


@kernel(types.int64(_PIXELS, _LABELS, _ORDER, types.int64, _WRITABLE, types.float32))
def sgd(
    pixels: Pixels,
    labels: Labels,
    order: NDArray[np.int64],
    batch_size: int,
    parameters: Floats,
    learning_rate: float,
) -> int:
    """One step of SGD on mnist_loss after the other; mnist37.model.gradient has the formula.

    Args:
        pixels: (N, 784).
        labels: (N,).
        order: which mini-batches; number i is of the images from i * batch_size on.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,), the weights and the bias; moved in place.
        learning_rate: as it says.

    Returns:
        The sum of the images' losses, each from before its step, in LOSS_UNITs.
    """
    weights = np.empty(784, np.float32)  # for pixels of 0 to 255
    slopes = np.empty(784, np.float32)  # N * dloss/dweights, for the same
    total: Any = np.int64(0)
    images = 0
    for index in order:
        first = index * batch_size
        last = min(first + batch_size, len(pixels))
        bias_slope = np.float32(0)
        for pixel in range(784):
            weights[pixel] = parameters[pixel] / _INK
            slopes[pixel] = 0
        for i in range(first, last):
            if images and images % IMAGES_AT_A_TIME == 0:
                _yield_core()
            image = pixels[i]
            p = _sigmoid(_weighted_sum(image, weights) + parameters[784])
            total += _loss(p, labels[i])
            slope = p * (_ONE - p)  # N * dloss/dscore, of a seven
            if labels[i]:
                slope = -slope
            bias_slope += slope
            for pixel in range(784):
                slopes[pixel] += slope * np.float32(image[pixel])
            images += 1
        rate = learning_rate / np.float32(last - first)
        for pixel in range(784):
            parameters[pixel] -= rate * (slopes[pixel] / _INK)
        parameters[784] -= rate * bias_slope
    return total  # type: ignore[no-any-return]


@kernel(types.Tuple((types.int64, types.int64))(_PIXELS, _LABELS, _PARAMETERS))
def evaluate(pixels: Pixels, labels: Labels, parameters: Floats) -> tuple[int, int]:
    """The sum of the losses of images (N, 784), in LOSS_UNITs, and how many are told rightly.

    Args:
        pixels: (N, 784).
        labels: (N,).
        parameters: (785,), the weights and the bias.
    """
    weights = parameters[:784] / _INK
    total: Any = np.int64(0)
    correct: Any = np.int64(0)
    for i in range(len(pixels)):
        score = _weighted_sum(pixels[i], weights) + parameters[784]
        total += _loss(_sigmoid(score), labels[i])
        correct += (score > 0) == (labels[i] == 1)
    return total, correct


@kernel(types.void(_PIXELS, _PARAMETERS, _WRITABLE))
def predict(pixels: Pixels, parameters: Floats, probabilities: Floats) -> None:
    """The probability, for each image, that it is a 3: sigmoid(pixels / 255 @ weights + bias).

    Args:
        pixels: (N, 784).
        parameters: (785,), the weights and the bias.
        probabilities: (N,), is given them.
    """
    weights = parameters[:784] / _INK
    for i in range(len(pixels)):
        probabilities[i] = _sigmoid(_weighted_sum(pixels[i], weights) + parameters[784])


@kernel(types.void(_FLOATS, _PARAMETERS, _WRITABLE))
def predict_floats(images: Floats, parameters: Floats, probabilities: Floats) -> None:
    """The same for images that are floats already: sigmoid(images @ weights + bias).

    Args:
        images: (N, 784), 0 to 1.
        parameters: (785,), the weights and the bias.
        probabilities: (N,), is given them.
    """
    weights = parameters[:784]
    for i in range(len(images)):
        probabilities[i] = _sigmoid(_weighted_sum(images[i], weights) + parameters[784])


@kernel(types.float64(_PARAMETERS))
def magnitude(parameters: Floats) -> float:
    """The sum of the absolute values of parameters (785,), the weights and the bias."""
    total: Any = np.float64(0)
    for parameter in parameters:
        total += abs(np.float64(parameter))
    return total  # type: ignore[no-any-return]
