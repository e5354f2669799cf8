"""The loops of mnist37.kernels for a CUDA device, in Triton, which torch brings.

An epoch is one launch of one block of threads. Its steps depend on each other, and each is so small
that to launch or to synchronise more of the device would take longer than the step; the images
stay in the device's cache. One block also adds in one order, so the bits never change.

An image is read as two parts, of 512 bytes and of the 272 that are left: then each image belongs to
one warp, which adds up its score without waiting for the other warps. While a tile of images is
computed on, the next one is already on its way from memory.

Parameters have no annotations but tl.constexpr: Triton's compiler looks up the names in them, and
refuses those that it does not know. Its interpreter does not, so only `make device-compile` and
tests/unit/mnist37/test_compiled_kernels.py show whether a device takes these functions.
"""

import triton
import triton.language as tl

ROWS = 16  # images in a tile
WARPS = 8  # of a block, each with two images of a tile

_PIXELS = tl.constexpr(784)
_PART = tl.constexpr(512)  # bytes of an image that a warp reads at once: 16 for each thread

# Weights are held divided by this, so that a sum over pixels of 0 to 255 does not overflow where
# one over 0 to 1 would not. A power of 2 changes no bit of them.
_SCALE = tl.constexpr(256)

# A loss is counted in units of 2**-39 as mnist37.losses says, here in two numbers of 32 bits: a
# consumer's device has few units for 64.
_HIGH_UNITS = tl.constexpr(2.0**20)
_LOW_UNITS = tl.constexpr(2.0**19)


@triton.jit
def _load(pixels, labels, first, count, ROWS: tl.constexpr):
    """Read a tile: images `first` to `first + count`, ROWS at most, in two parts; their labels."""
    row = tl.arange(0, ROWS)
    there = row < count
    column = tl.arange(0, _PART)[None, :]
    image = pixels + (first + row)[:, None] * _PIXELS + column
    head = tl.load(image, mask=there[:, None], other=0)
    rest = column < _PIXELS - _PART
    tail = tl.load(image + _PART, mask=there[:, None] & rest, other=0)
    return head, tail, tl.load(labels + first + row, mask=there, other=0)


@triton.jit
def _load_parameters(parameters):
    """Read the weights of the two parts, divided by _SCALE, and the bias."""
    column = tl.arange(0, _PART)
    head = tl.load(parameters + column)
    tail = tl.load(parameters + _PART + column, mask=column < _PIXELS - _PART, other=0.0)
    return head / _SCALE, tail / _SCALE, tl.load(parameters + _PIXELS)


@triton.jit
def _scores(head, tail, head_weights, tail_weights, bias):
    """Return the scores (ROWS,) of images of 0 to 255."""
    products = head * head_weights[None, :] + tail * tail_weights[None, :]
    return tl.sum(products, axis=1) * (_SCALE / 255) + bias


@triton.jit
def _sigmoid(scores):
    return 1 / (1 + tl.exp(-scores))


@triton.jit
def _losses(probabilities, threes):
    """Return the losses (ROWS,) in LOSS_UNITs, to within one of them."""
    scaled = probabilities * _HIGH_UNITS
    high = scaled.to(tl.int32)
    low = ((scaled - high.to(tl.float32)) * _LOW_UNITS + 0.5).to(tl.int32)
    units = high.to(tl.int64) * 2**19 + low
    return tl.where(threes, 2**39 - units, units)


@triton.jit(do_not_specialize=["steps", "count", "batch_size"])
def sgd(
    pixels,
    labels,
    order,
    steps,
    count,
    batch_size,
    parameters,
    learning_rate,
    total,
    ROWS: tl.constexpr,
):
    """Take steps of SGD; see mnist37.kernels.sgd. For a grid of one block.

    Args:
        pixels: (count, 784) uint8.
        labels: (count,) uint8.
        order: (steps,) int64, the numbers of the mini-batches.
        steps: at least 1.
        count: of the images.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,) float32, changed in place.
        learning_rate: float32.
        total: int64, is given the sum of the losses, in LOSS_UNITs.
        ROWS: images in a tile.
    """
    head_weights, tail_weights, bias = _load_parameters(parameters)
    losses = tl.zeros([ROWS], tl.int64)
    first = tl.load(order) * batch_size
    size = tl.minimum(count - first, batch_size)
    head, tail, marks = _load(pixels, labels, first, size, ROWS)
    for step in range(steps):
        following = tl.load(order + tl.minimum(step + 1, steps - 1)) * batch_size
        # N * dloss/dweights. Added up over the rows once a step: a sum over the warps is slow.
        head_slopes = tl.zeros([ROWS, _PART], tl.float32)
        tail_slopes = tl.zeros([ROWS, _PART], tl.float32)
        bias_slopes = tl.zeros([ROWS], tl.float32)
        rate = learning_rate / size
        for start in range(0, size, ROWS):
            left = size - start
            is_last = left <= ROWS
            # The next tile of this mini-batch, or the first of the next one.
            next_first = tl.where(is_last, following, first + start + ROWS)
            next_count = tl.where(is_last, tl.minimum(count - following, batch_size), left - ROWS)
            next_head, next_tail, next_marks = _load(pixels, labels, next_first, next_count, ROWS)

            there = tl.arange(0, ROWS) < left
            threes = marks != 0
            head_pixels, tail_pixels = head.to(tl.float32), tail.to(tl.float32)
            p = _sigmoid(_scores(head_pixels, tail_pixels, head_weights, tail_weights, bias))
            losses += tl.where(there, _losses(p, threes), 0)
            slope = tl.where(threes, -p * (1 - p), p * (1 - p))  # N * dloss/dscore
            slope = tl.where(there, slope, 0.0)
            head_slopes += head_pixels * slope[:, None]
            tail_slopes += tail_pixels * slope[:, None]
            bias_slopes += slope
            head, tail, marks = next_head, next_tail, next_marks
        head_weights -= rate * (tl.sum(head_slopes, axis=0) / 255) / _SCALE
        tail_weights -= rate * (tl.sum(tail_slopes, axis=0) / 255) / _SCALE
        bias -= rate * tl.sum(bias_slopes, axis=0)
        first = following
        size = tl.minimum(count - first, batch_size)
    column = tl.arange(0, _PART)
    tl.store(parameters + column, head_weights * _SCALE)
    tl.store(parameters + _PART + column, tail_weights * _SCALE, mask=column < _PIXELS - _PART)
    tl.store(parameters + _PIXELS, bias)
    tl.store(total, tl.sum(losses, axis=0))


@triton.jit(do_not_specialize=["count"])
def evaluate(pixels, labels, count, parameters, found, ROWS: tl.constexpr):
    """Evaluate a tile of images in each block; see mnist37.kernels.evaluate.

    Args:
        pixels: (count, 784) uint8.
        labels: (count,) uint8.
        count: of the images; the grid has a block for each ROWS of them.
        parameters: (785,) float32.
        found: (blocks, 2) int64, is given the sum of each tile's losses, in LOSS_UNITs, and how
            many of its images are told rightly.
        ROWS: images in a tile.
    """
    block = tl.program_id(0)
    left = count - block * ROWS
    head, tail, marks = _load(pixels, labels, block * ROWS, left, ROWS)
    head_weights, tail_weights, bias = _load_parameters(parameters)
    head_pixels, tail_pixels = head.to(tl.float32), tail.to(tl.float32)
    scores = _scores(head_pixels, tail_pixels, head_weights, tail_weights, bias)
    there = tl.arange(0, ROWS) < left
    threes = marks != 0
    losses = tl.where(there, _losses(_sigmoid(scores), threes), 0)
    # A score of exactly 0 is a seven, as in the notes' `preds > 0.0`.
    right = tl.where(there, ((scores > 0) == threes).to(tl.int64), 0)
    tl.store(found + 2 * block, tl.sum(losses, axis=0))
    tl.store(found + 2 * block + 1, tl.sum(right, axis=0))
