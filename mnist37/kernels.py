"""The arithmetic on the CPU: loops over the pixels, which numba compiles for the machine.

Each image is read once, as the bytes it came as, and its floats never leave the registers; so an
epoch takes about as long as to read the images as floats. No kernel holds Python's lock.

The compiler may not change a bit. A sum of floats depends on its order, so whatever is added up is
added in the order that is written here: no kernel allows what numba calls fast math, and the one
sum that needs vectors to be fast, an image's score, has its vectors written out (`_dot`). So an
image scores the same to the bit alone and in any batch, and a model is trained to the same bits on
every x86-64 processor, whether its kernels were compiled just now or taken from numba's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import create_struct_proxy, get_or_insert_function
from numba.extending import intrinsic
from numpy.typing import NDArray

from mnist37.losses import LOSS_UNIT

Pixels = NDArray[np.uint8]  # (N, 784), 0 = background, 255 = ink
Labels = NDArray[np.uint8]  # (N,), 1 = three, 0 = seven
Floats = NDArray[np.float32]
Flag = NDArray[np.uint8]  # (1,), 0 or 1
Llvm: TypeAlias = Any  # what numba and llvmlite have no types for

# POSIX's. A thread that only computes is left on its core for milliseconds, and who wakes up there
# for a moment's work waits. So training offers its core to them again and again.
_yield_core = types.ExternalFunction("sched_yield", types.int32())
IMAGES_PER_YIELD = 256  # until then; some 20 us
# Of single steps more: whoever asked for one waits for its commit, and what is to be done for other
# writers is better done meanwhile. But readers want it now.
STEPS_PER_YIELD = 4

PIXELS = 784  # of an image, a byte each
LANES = 16  # products that are added at a time: 784 = 49 * 16
SUMS = 4  # vectors of sums, so that an addition need not wait for the one before

_ONE = np.float32(1)
_INK = np.float32(255)

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # 1 / (1 + inf) is 0
}


def inlined(function: F) -> F:
    """Makes a function a part of the kernels that call it.

    A function that is called instead may be there twice: as it was compiled now, by itself, and
    as numba's cache has it, with a kernel. The two need not be the same instructions.
    """
    part: Any = numba.njit(inline="always", **OPTIONS)(function)
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
_FLAG = _array(types.uint8, 1)
_ORDER = _array(types.int64, 1)
_ORDERS = _array(types.int64, 2)
_LOSSES = _array(types.int64, 1, readonly=False)
_TOTALS = _array(types.int64, 2, readonly=False)
_SNAPSHOTS = _array(types.float32, 2, readonly=False)
_PARAMETERS = _array(types.float32, 1)
_WRITABLE = _array(types.float32, 1, readonly=False)
_BYTES = types.Bytes(types.uint8, 1, "C")
_BYTEARRAY = types.ByteArray(types.uint8, 1, "C")


def _weighted_sum(typing: Llvm, image: types.Array, weights: types.Array) -> Llvm:  # noqa: ARG001
    """An image's weighted sum, of 784 bytes or floats and as many float32, in LLVM's own words.

    Vector k, of LANES products, is added to sum k % SUMS; then sum is added to sum, and the upper
    half of what is left to the lower, until one number is. No product is rounded before it is added
    (fma), so every processor comes to the same.
    """

    def code(context: Llvm, builder: Llvm, signature: Llvm, arguments: Llvm) -> Llvm:
        floats = ir.VectorType(ir.FloatType(), LANES)
        fma = get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{LANES}f32"
        )

        def vector(argument: int, number: int) -> Llvm:
            array = signature.args[argument]
            element = context.get_value_type(array.dtype)
            data = create_struct_proxy(array)(context, builder, arguments[argument]).data
            place = builder.bitcast(data, ir.VectorType(element, LANES).as_pointer())
            place = builder.gep(place, [ir.Constant(ir.IntType(64), number)])
            found = builder.load(place, align=array.dtype.bitwidth // 8)
            return found if array.dtype is types.float32 else builder.uitofp(found, floats)

        def part(of: Llvm, start: int, count: int) -> Llvm:
            numbers = ir.Constant(
                ir.VectorType(ir.IntType(32), count), [*range(start, start + count)]
            )
            return builder.shuffle_vector(of, of, numbers)

        sums = [ir.Constant(floats, [0.0] * LANES)] * SUMS
        for number in range(PIXELS // LANES):
            factors = vector(0, number), vector(1, number)
            sums[number % SUMS] = builder.call(fma, [*factors, sums[number % SUMS]])
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [builder.fadd(sums[i], sums[i + half]) for i in range(half)]
        (total,) = sums
        count = LANES
        while count > 1:
            count //= 2
            total = builder.fadd(part(total, 0, count), part(total, count, count))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(image, weights), code


_dot: Llvm = intrinsic(_weighted_sum)  # of an image and its weights, in kernels


@inlined
def _sigmoid(score: np.float32) -> np.float32:
    # In float64, whose last bits, in which libraries differ, the result does not show.
    return np.float32(1 / (1 + math.exp(-np.float64(score))))


@inlined
def _loss(probability: np.float32, label: np.uint8) -> np.int64:
    """In LOSS_UNITs."""
    loss = 1 - np.float64(probability) if label else np.float64(probability)
    return np.int64(np.rint(loss / LOSS_UNIT))


@inlined
def _sgd(
    pixels: Pixels,
    labels: Labels,
    order: NDArray[np.int64],
    batch_size: int,
    parameters: Floats,
    learning_rate: float,
    stop: Flag,
) -> tuple[int, int]:
    weights = np.empty(PIXELS, np.float32)  # for pixels of 0 to 255
    slopes = np.empty(PIXELS, np.float32)  # N * dloss/dweights, for the same
    total: Any = np.int64(0)
    steps = images = 0
    for index in order:
        if stop[0]:  # read each time, since for the compiler _yield_core may change anything
            break
        first = index * batch_size
        last = min(first + batch_size, len(pixels))
        bias_slope = np.float32(0)
        for pixel in range(PIXELS):
            weights[pixel] = parameters[pixel] / _INK
            slopes[pixel] = 0
        for i in range(first, last):
            if images and images % IMAGES_PER_YIELD == 0:
                _yield_core()
            image = pixels[i]
            p = _sigmoid(_dot(image, weights) + parameters[PIXELS])
            total += _loss(p, labels[i])
            slope = p * (_ONE - p)  # N * dloss/dscore, of a seven
            if labels[i]:
                slope = -slope
            bias_slope += slope
            for pixel in range(PIXELS):
                slopes[pixel] += slope * np.float32(image[pixel])
            images += 1
        rate = learning_rate / np.float32(last - first)
        for pixel in range(PIXELS):
            parameters[pixel] -= rate * (slopes[pixel] / _INK)
        parameters[PIXELS] -= rate * bias_slope
        steps += 1
    return total, steps


@inlined
def _evaluate(pixels: Pixels, labels: Labels, parameters: Floats) -> tuple[int, int]:
    weights = parameters[:PIXELS] / _INK
    total: Any = np.int64(0)
    correct: Any = np.int64(0)
    for i in range(len(pixels)):
        if i and i % IMAGES_PER_YIELD == 0:
            _yield_core()
        score = _dot(pixels[i], weights) + parameters[PIXELS]
        total += _loss(_sigmoid(score), labels[i])
        correct += (score > 0) == (labels[i] == 1)
    return total, correct


@inlined
def _absolute_sum(parameters: Floats) -> float:
    total = 0.0
    for parameter in parameters:
        total += abs(np.float64(parameter))
    return total


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
    total, _ = _sgd(
        pixels, labels, order, batch_size, parameters, learning_rate, np.zeros(1, np.uint8)
    )
    return total


@kernel(
    types.int64(
        *(_PIXELS, _LABELS, _ORDER, types.int64, _WRITABLE),
        *(_PARAMETERS, types.float64, _LOSSES, _SNAPSHOTS),
    )
)
def steps(
    pixels: Pixels,
    labels: Labels,
    order: NDArray[np.int64],
    batch_size: int,
    parameters: Floats,
    learning_rates: Floats,
    bound: float,
    losses: NDArray[np.int64],
    snapshots: Floats,
) -> int:
    """The steps of `sgd`, each with a learning rate of its own and remembered by itself.

    Args:
        pixels: (N, 784).
        labels: (N,).
        order: (S,), as `sgd`.
        batch_size: as `sgd`.
        parameters: as `sgd`.
        learning_rates: (S,).
        bound: what `magnitude` must not find more than; after the first step that brings the
            parameters beyond it, or to NaN, there is no further.
        losses: (S,), is given each step's sum of its images' losses, in LOSS_UNITs.
        snapshots: (S, 785), is given the parameters after each step.

    Returns:
        How many steps kept the parameters within the bound.
    """
    never = np.zeros(1, np.uint8)
    for step in range(len(order)):
        part = order[step : step + 1]
        total, _ = _sgd(pixels, labels, part, batch_size, parameters, learning_rates[step], never)
        if not _absolute_sum(parameters) <= bound:  # true for NaN too
            return step
        losses[step] = total
        for i in range(PIXELS + 1):
            snapshots[step, i] = parameters[i]
        if (step + 1) % STEPS_PER_YIELD == 0:
            _yield_core()
    return len(order)


@kernel(types.Tuple((types.int64, types.int64))(_PIXELS, _LABELS, _PARAMETERS))
def evaluate(pixels: Pixels, labels: Labels, parameters: Floats) -> tuple[int, int]:
    """The sum of the losses of images (N, 784), in LOSS_UNITs, and how many are told rightly.

    Args:
        pixels: (N, 784).
        labels: (N,).
        parameters: (785,), the weights and the bias.
    """
    return _evaluate(pixels, labels, parameters)


@kernel(
    types.Tuple((types.int64, types.int64))(
        *(_PIXELS, _LABELS, _PIXELS, _LABELS, _ORDERS, types.int64, types.int64, types.int64),
        *(types.int64, _WRITABLE, types.float32, _FLAG, _TOTALS, _SNAPSHOTS),
    )
)
def train(
    pixels: Pixels,
    labels: Labels,
    valid_pixels: Pixels,
    valid_labels: Labels,
    orders: NDArray[np.int64],
    start: int,
    most: int,
    loss: int,
    batch_size: int,
    parameters: Floats,
    learning_rate: float,
    stop: Flag,
    totals: NDArray[np.int64],
    snapshots: Floats,
) -> tuple[int, int]:
    """Steps of `sgd`, epoch after epoch, each followed by `evaluate`: Python's lock is not wanted.

    Args:
        pixels: (N, 784).
        labels: (N,).
        valid_pixels: (M, 784), to evaluate on.
        valid_labels: (M,).
        orders: (E, S), which mini-batches in each epoch.
        start: how many steps of the first epoch are done already.
        most: how many steps to do at the most.
        loss: the sum of the losses of those that are done, in LOSS_UNITs.
        batch_size: as `sgd`.
        parameters: as `sgd`.
        learning_rate: as `sgd`.
        stop: (1,); once it is not 0, which may be at any time, there is no further step.
        totals: (E, 3), is given each epoch's sum of training losses, and what `evaluate` finds.
        snapshots: (E, 785), is given the parameters after each epoch.

    Returns:
        How many steps were done, and the sum of the losses of the epoch that did not end.
    """
    steps = 0
    for epoch in range(len(orders)):
        order = orders[epoch][start : start + most - steps]
        total, done = _sgd(pixels, labels, order, batch_size, parameters, learning_rate, stop)
        loss += total
        steps += done
        if start + done < orders.shape[1]:
            break
        totals[epoch, 0] = loss
        total, correct = _evaluate(valid_pixels, valid_labels, parameters)
        totals[epoch, 1] = total
        totals[epoch, 2] = correct
        for i in range(PIXELS + 1):
            snapshots[epoch, i] = parameters[i]
        start = loss = 0
    return steps, loss


@kernel(types.void(_PIXELS, _PARAMETERS, _WRITABLE))
def predict(pixels: Pixels, parameters: Floats, probabilities: Floats) -> None:
    """The probability, for each image, that it is a 3: sigmoid(pixels / 255 @ weights + bias).

    Args:
        pixels: (N, 784).
        parameters: (785,), the weights and the bias.
        probabilities: (N,), is given them.
    """
    weights = parameters[:PIXELS] / _INK
    for i in range(len(pixels)):
        probabilities[i] = _sigmoid(_dot(pixels[i], weights) + parameters[PIXELS])


@kernel(types.void(_BYTES, types.int64, types.int64, _PARAMETERS, _BYTEARRAY))
def predict_bytes(
    message: bytes, start: int, count: int, parameters: Floats, probabilities: bytearray
) -> None:
    """The same for images that are a part of a message; to make an array of them takes longer.

    Args:
        message: has `count` images of 784 bytes each.
        start: where in the message the first begins.
        count: how many.
        parameters: (785,), the weights and the bias.
        probabilities: 4 * count bytes, is given `count` float32.

    Raises:
        ValueError: the images or the probabilities do not fit.
    """
    if start < 0 or count < 0 or count > (len(message) - start) // PIXELS:
        raise ValueError("the images are not in the message")
    if len(probabilities) != 4 * count:
        raise ValueError("there must be 4 bytes for each probability")
    weights = parameters[:PIXELS] / _INK
    found = np.frombuffer(probabilities, np.float32)
    for i in range(count):
        score = _dot(message[start + i * PIXELS :], weights) + parameters[PIXELS]
        found[i] = _sigmoid(score)


@kernel(types.void(_FLOATS, _PARAMETERS, _WRITABLE))
def predict_floats(images: Floats, parameters: Floats, probabilities: Floats) -> None:
    """The same for images that are floats already: sigmoid(images @ weights + bias).

    Args:
        images: (N, 784), 0 to 1.
        parameters: (785,), the weights and the bias.
        probabilities: (N,), is given them.
    """
    weights = parameters[:PIXELS]
    for i in range(len(images)):
        probabilities[i] = _sigmoid(_dot(images[i], weights) + parameters[PIXELS])


@kernel(types.void(_FLOATS, types.Array(types.float64, 1, "C")))
def absolute_sums(parameters: Floats, magnitudes: NDArray[np.float64]) -> None:
    """The sums of absolute values.

    Args:
        parameters: (N, 785), the weights and the bias of each.
        magnitudes: (N,), is given them.
    """
    for i in range(len(parameters)):
        magnitudes[i] = _absolute_sum(parameters[i])
