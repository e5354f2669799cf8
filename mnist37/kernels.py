"""The arithmetic on the CPU: loops over the pixels, which numba compiles for the machine.

A kernel reads each image once, as bytes, and its floats never leave the registers. So an epoch
takes about as long as reading the images as floats. No kernel holds Python's lock.

The compiler must not change a bit. A sum of floats depends on its order, so kernels add in the
order of the source: no kernel allows numba's fast math, and the one sum that needs vectors to be
fast, an image's score, has its vectors written out (`_dot`). So the bits of an image's score are
the same alone and in any batch, and training gives the same bits on every x86-64 processor,
whether its kernels were compiled just now or loaded from numba's cache.
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

from mnist37.kernel_cache import compile_kernel
from mnist37.losses import LOSS_UNIT

Pixels = NDArray[np.uint8]  # (N, 784), 0 = background, 255 = ink
Labels = NDArray[np.uint8]  # (N,), 1 = three, 0 = seven
Floats = NDArray[np.float32]
Flag = NDArray[np.uint8]  # (1,), 0 or 1
Llvm: TypeAlias = Any  # objects of numba and llvmlite, which have no types

# POSIX's sched_yield. Linux leaves a thread that only computes on its core for milliseconds, and
# another thread that wakes up on that core for short work waits. So training offers its core often.
_yield_core = types.ExternalFunction("sched_yield", types.int32())
IMAGES_PER_YIELD = 256  # some 20 us
# `steps` offers its core less often. The callers of these steps wait for their commit, and threads
# that handle other writes can work during that commit. Predictions need the core earlier.
STEPS_PER_YIELD = 4

PIXELS = 784  # of an image, a byte each
LANES = 16  # products in a vector, added at a time: 784 = 49 * 16
SUMS = 4  # vectors of sums, so that an addition does not wait for the previous one

_ONE = np.float32(1)
_INK = np.float32(255)

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # 1 / (1 + inf) is 0
}


def inlined(function: F) -> F:
    """Inline a function into the kernels that call it.

    Without inlining, two copies of the function can exist: one compiled now, by itself, and one in
    numba's cache, with a kernel. Their instructions can differ.
    """
    dispatcher: Any = numba.njit(inline="always", **OPTIONS)(function)
    return cast(F, dispatcher)


def kernel(signature: object) -> Callable[[F], F]:
    """Return a decorator that compiles a function, or loads it from numba's cache.

    Args:
        signature: the numba types of the result and the arguments.
    """

    def compile_function(function: F) -> F:
        return compile_kernel(function, signature, OPTIONS)

    return compile_function


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
    """Generate LLVM code for the dot product of an image, 784 bytes or float32, and its weights.

    The code adds vector k, of LANES products, to sum k % SUMS. It then adds the upper half of the
    sums to the lower half until one vector is left, and the upper half of that vector to the lower
    half until one number is left. It does not round a product before adding it (fma), so every
    processor computes the same bits.
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
            pointer = builder.bitcast(data, ir.VectorType(element, LANES).as_pointer())
            pointer = builder.gep(pointer, [ir.Constant(ir.IntType(64), number)])
            values = builder.load(pointer, align=array.dtype.bitwidth // 8)
            return values if array.dtype is types.float32 else builder.uitofp(values, floats)

        def lanes(source: Llvm, start: int, count: int) -> Llvm:
            indices = ir.Constant(
                ir.VectorType(ir.IntType(32), count), [*range(start, start + count)]
            )
            return builder.shuffle_vector(source, source, indices)

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
            total = builder.fadd(lanes(total, 0, count), lanes(total, count, count))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(image, weights), code


_dot: Llvm = intrinsic(_weighted_sum)  # _dot(image, weights), for kernels only


@inlined
def _sigmoid(score: np.float32) -> np.float32:
    # The exponential is in float64: libraries differ in its last bits. Rounding to float32 removes
    # that difference, but for about one result in a hundred million.
    return np.float32(1 / (1 + math.exp(-np.float64(score))))


@inlined
def _loss(probability: np.float32, label: np.uint8) -> np.int64:
    """Return the loss of one image in LOSS_UNITs."""
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
    weights = np.empty(PIXELS, np.float32)  # for pixels in 0..255
    slopes = np.empty(PIXELS, np.float32)  # N * dloss/dweights, for pixels in 0..255
    total: Any = np.int64(0)
    steps = images = 0
    for index in order:
        # The compiler does not hoist this read out of the loop: _yield_core may change any memory.
        if stop[0]:
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
            slope = p * (_ONE - p)  # N * dloss/dscore of a seven
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
def _evaluate(pixels: Pixels, labels: Labels, parameters: Floats) -> tuple[int, int, int, int]:
    weights = parameters[:PIXELS] / _INK
    total: Any = np.int64(0)
    threes_right: Any = np.int64(0)
    sevens_right: Any = np.int64(0)
    threes: Any = np.int64(0)
    for i in range(len(pixels)):
        if i and i % IMAGES_PER_YIELD == 0:
            _yield_core()
        score = _dot(pixels[i], weights) + parameters[PIXELS]
        total += _loss(_sigmoid(score), labels[i])
        is_three = labels[i] == 1
        is_called_three = score > 0  # exactly 0 is a seven, as in the notes' `preds > 0.0`
        threes_right += is_three & is_called_three
        sevens_right += not (is_three | is_called_three)
        threes += is_three
    return total, threes_right, sevens_right, threes


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
    """Take one step of SGD on mnist_loss for each mini-batch in `order`, one after the other.

    The formula of a step is that of mnist37.model.gradient.

    Args:
        pixels: (N, 784).
        labels: (N,).
        order: (S,), indices of mini-batches; number i starts with image i * batch_size.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,), the weights, then the bias; changed in place.
        learning_rate: the factor of the gradient in each step.

    Returns:
        The sum of the images' losses in LOSS_UNITs. A loss is computed before its step.
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
    """Take steps of SGD like `sgd`, each with its own learning rate, and store each step's result.

    Args:
        pixels: (N, 784).
        labels: (N,).
        order: (S,), indices of mini-batches; number i starts with image i * batch_size.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,), the weights, then the bias; changed in place.
        learning_rates: (S,), one for each step.
        bound: the maximum of the sum of the parameters' absolute values. The first step that brings
            the sum above it, or to NaN, is the last one.
        losses: (S,), receives the sum of the images' losses of each step, in LOSS_UNITs.
        snapshots: (S, 785), receives the parameters after each step.

    Returns:
        How many steps kept the parameters within the bound.
    """
    no_stop = np.zeros(1, np.uint8)
    for step in range(len(order)):
        batch = order[step : step + 1]
        total, _ = _sgd(
            pixels, labels, batch, batch_size, parameters, learning_rates[step], no_stop
        )
        if not _absolute_sum(parameters) <= bound:  # true for NaN too
            return step
        losses[step] = total
        for i in range(PIXELS + 1):
            snapshots[step, i] = parameters[i]
        if (step + 1) % STEPS_PER_YIELD == 0:
            _yield_core()
    return len(order)


@kernel(types.UniTuple(types.int64, 4)(_PIXELS, _LABELS, _PARAMETERS))
def evaluate(pixels: Pixels, labels: Labels, parameters: Floats) -> tuple[int, int, int, int]:
    """Return the sum of the images' losses and the numbers of correct classifications.

    Args:
        pixels: (N, 784).
        labels: (N,).
        parameters: (785,), the weights, then the bias.

    Returns:
        The sum of the losses in LOSS_UNITs, how many threes and how many sevens are classified
        correctly, and how many threes there are.
    """
    return _evaluate(pixels, labels, parameters)


@kernel(
    types.Tuple((types.int64, types.int64))(
        *(_PIXELS, _LABELS, _PIXELS, _LABELS, _ORDERS, types.int64, types.int64, types.int64),
        *(types.int64, _WRITABLE, _PARAMETERS, _FLAG, _TOTALS, _SNAPSHOTS),
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
    rates: Floats,
    stop: Flag,
    totals: NDArray[np.int64],
    snapshots: Floats,
) -> tuple[int, int]:
    """Train for several epochs without Python's lock, and evaluate after each epoch.

    Each step is a step of `sgd`.

    Args:
        pixels: (N, 784).
        labels: (N,).
        valid_pixels: (M, 784), to evaluate on.
        valid_labels: (M,).
        orders: (E, S), the indices of the mini-batches in each epoch.
        start: how many steps of the first epoch are already done.
        most: how many steps to take at most.
        loss: the sum of the losses of the steps already done, in LOSS_UNITs.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,), the weights, then the bias; changed in place.
        rates: (E,), the learning rate of each epoch: the factor of the gradient in its steps.
        stop: (1,); another thread may set it at any time. While it is not 0, no step starts.
        totals: (E, 3), receives each epoch's sum of training losses in LOSS_UNITs, then the sum of
            the validation losses after it, and how many of these images are classified correctly.
        snapshots: (E, 785), receives the parameters after each epoch.

    Returns:
        How many steps were taken, and the sum of the losses of the incomplete last epoch.
    """
    steps = 0
    for epoch in range(len(orders)):
        order = orders[epoch][start : start + most - steps]
        total, epoch_steps = _sgd(pixels, labels, order, batch_size, parameters, rates[epoch], stop)
        loss += total
        steps += epoch_steps
        if start + epoch_steps < orders.shape[1]:
            break
        totals[epoch, 0] = loss
        total, threes_right, sevens_right, _ = _evaluate(valid_pixels, valid_labels, parameters)
        totals[epoch, 1] = total
        totals[epoch, 2] = threes_right + sevens_right
        for i in range(PIXELS + 1):
            snapshots[epoch, i] = parameters[i]
        start = loss = 0
    return steps, loss


@kernel(types.void(_PIXELS, _PARAMETERS, _WRITABLE))
def predict(pixels: Pixels, parameters: Floats, probabilities: Floats) -> None:
    """Compute each image's probability of being a 3: sigmoid(pixels / 255 @ weights + bias).

    Args:
        pixels: (N, 784).
        parameters: (785,), the weights, then the bias.
        probabilities: (N,), receives the probabilities.
    """
    weights = parameters[:PIXELS] / _INK
    for i in range(len(pixels)):
        probabilities[i] = _sigmoid(_dot(pixels[i], weights) + parameters[PIXELS])


@kernel(types.void(_BYTES, types.int64, types.int64, _PARAMETERS, _BYTEARRAY))
def predict_bytes(
    message: bytes, start: int, count: int, parameters: Floats, probabilities: bytearray
) -> None:
    """Compute each image's probability of being a 3, from images inside a message.

    It gives the same bits as `predict`. Making an array of the images for `predict` takes longer.

    Args:
        message: contains `count` images of 784 bytes each.
        start: the offset of the first image in the message, in bytes.
        count: how many images there are.
        parameters: (785,), the weights, then the bias.
        probabilities: 4 * count bytes, receives `count` float32.

    Raises:
        ValueError: the images are not inside the message, or `probabilities` has another size.
    """
    if start < 0 or count < 0 or count > (len(message) - start) // PIXELS:
        raise ValueError("the images are not in the message")
    if len(probabilities) != 4 * count:
        raise ValueError("there must be 4 bytes for each probability")
    weights = parameters[:PIXELS] / _INK
    floats = np.frombuffer(probabilities, np.float32)
    for i in range(count):
        score = _dot(message[start + i * PIXELS :], weights) + parameters[PIXELS]
        floats[i] = _sigmoid(score)


@kernel(types.void(_FLOATS, _PARAMETERS, _WRITABLE))
def predict_floats(images: Floats, parameters: Floats, probabilities: Floats) -> None:
    """Compute each image's probability of being a 3, from floats: sigmoid(images @ weights + bias).

    Args:
        images: (N, 784), 0 to 1.
        parameters: (785,), the weights, then the bias.
        probabilities: (N,), receives the probabilities.
    """
    weights = parameters[:PIXELS]
    for i in range(len(images)):
        probabilities[i] = _sigmoid(_dot(images[i], weights) + parameters[PIXELS])


@kernel(types.void(_FLOATS, types.Array(types.float64, 1, "C")))
def absolute_sums(parameters: Floats, magnitudes: NDArray[np.float64]) -> None:
    """Compute the sum of the absolute values of each model's parameters, in float64.

    Args:
        parameters: (N, 785), the weights, then the bias, of each model.
        magnitudes: (N,), receives the sums.
    """
    for i in range(len(parameters)):
        magnitudes[i] = _absolute_sum(parameters[i])
