"""The loops of mnist37.kernels for a CUDA device, in Triton, which is installed with torch.

An epoch is one launch of one block of threads. The steps depend on each other, and each is so small
that launching or synchronising more of the device would take longer than the step. The images stay
in the device's cache. One block also adds in one order, so the bits never change.

A kernel reads an image in two parts, the first 512 bytes and the last 272. So each image belongs to
one warp, which adds up its score without waiting for the other warps. While a kernel computes on
one tile of images, it already loads the next one from memory.

No parameter has an annotation other than tl.constexpr: Triton's compiler looks up the names in
annotations, and rejects names that it does not know. Triton's interpreter accepts them. So only
`make device-compile` and tests/unit/mnist37/test_compiled_kernels.py show whether these functions
compile for a device.
"""

import triton
import triton.language as tl

ROWS = 16  # images in a tile
WARPS = 8  # of a block, each with two images of a tile
# Above the images in the largest message that a server can be told to take, 1 GiB: 1.4 million. Its
# square times as many images fits an int64.
COUNT_UNIT = tl.constexpr(2**21)

_PIXELS = tl.constexpr(784)
_PART = tl.constexpr(512)  # bytes of an image that a warp reads at once: 16 for each thread

# The kernels hold the weights divided by this, so that a sum over pixels in 0..255 overflows only
# where a sum over pixels in 0..1 would. Dividing by a power of 2 keeps all bits of the significand.
_SCALE = tl.constexpr(256)

# Losses are whole numbers of 2**-39 (mnist37.losses). The kernels compute one in two numbers of 32
# bits, because a consumer's device has few arithmetic units for 64 bits.
_HIGH_UNITS = tl.constexpr(2.0**20)
_LOW_UNITS = tl.constexpr(2.0**19)


@triton.jit
def _load(pixels, labels, first, count, ROWS: tl.constexpr):
    """Read a tile of at most ROWS images, in two parts, and their labels.

    The tile starts with image `first`. It has `count` images, or ROWS if `count` is larger.
    """
    row = tl.arange(0, ROWS)
    is_image = row < count
    column = tl.arange(0, _PART)[None, :]
    image = pixels + (first + row)[:, None] * _PIXELS + column
    head = tl.load(image, mask=is_image[:, None], other=0)
    rest = column < _PIXELS - _PART
    tail = tl.load(image + _PART, mask=is_image[:, None] & rest, other=0)
    return head, tail, tl.load(labels + first + row, mask=is_image, other=0)


@triton.jit
def _load_parameters(parameters):
    """Read the weights of the two parts, divided by _SCALE, and the bias."""
    column = tl.arange(0, _PART)
    head = tl.load(parameters + column)
    tail = tl.load(parameters + _PART + column, mask=column < _PIXELS - _PART, other=0.0)
    return head / _SCALE, tail / _SCALE, tl.load(parameters + _PIXELS)


@triton.jit
def _scores(head, tail, head_weights, tail_weights, bias):
    """Return the scores (ROWS,) of images with pixels in 0..255."""
    products = head * head_weights[None, :] + tail * tail_weights[None, :]
    return tl.sum(products, axis=1) * (_SCALE / 255) + bias


@triton.jit
def _sigmoid(scores):
    return 1 / (1 + tl.exp(-scores))


@triton.jit
def _losses(probabilities, threes):
    """Return the losses (ROWS,) in LOSS_UNITs, with an error of at most one LOSS_UNIT."""
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
    """Take steps of SGD on mnist_loss in a grid of one block.

    The formula of a step is that of mnist37.model.gradient.

    Args:
        pixels: (count, 784) uint8.
        labels: (count,) uint8.
        order: (steps,) int64, indices of mini-batches; number i starts with image i * batch_size.
        steps: how many steps to take, at least 1.
        count: how many images there are.
        batch_size: images in a mini-batch; the last one may be short.
        parameters: (785,) float32, the weights, then the bias; changed in place.
        learning_rate: float32.
        total: int64, receives the sum of the images' losses, each before its step, in LOSS_UNITs.
        ROWS: images in a tile.
    """
    head_weights, tail_weights, bias = _load_parameters(parameters)
    losses = tl.zeros([ROWS], tl.int64)
    first = tl.load(order) * batch_size
    size = tl.minimum(count - first, batch_size)
    head, tail, tile_labels = _load(pixels, labels, first, size, ROWS)
    for step in range(steps):
        following = tl.load(order + tl.minimum(step + 1, steps - 1)) * batch_size
        # N * dloss/dweights. The kernel adds up the rows once a step: a sum over the warps is slow.
        head_slopes = tl.zeros([ROWS, _PART], tl.float32)
        tail_slopes = tl.zeros([ROWS, _PART], tl.float32)
        bias_slopes = tl.zeros([ROWS], tl.float32)
        rate = learning_rate / size
        for start in range(0, size, ROWS):
            left = size - start
            is_last = left <= ROWS
            # The next tile of this mini-batch, or the first tile of the next mini-batch.
            next_first = tl.where(is_last, following, first + start + ROWS)
            next_count = tl.where(is_last, tl.minimum(count - following, batch_size), left - ROWS)
            next_head, next_tail, next_labels = _load(pixels, labels, next_first, next_count, ROWS)

            is_image = tl.arange(0, ROWS) < left
            threes = tile_labels != 0
            head_pixels, tail_pixels = head.to(tl.float32), tail.to(tl.float32)
            p = _sigmoid(_scores(head_pixels, tail_pixels, head_weights, tail_weights, bias))
            losses += tl.where(is_image, _losses(p, threes), 0)
            slope = tl.where(threes, -p * (1 - p), p * (1 - p))  # N * dloss/dscore
            slope = tl.where(is_image, slope, 0.0)
            head_slopes += head_pixels * slope[:, None]
            tail_slopes += tail_pixels * slope[:, None]
            bias_slopes += slope
            head, tail, tile_labels = next_head, next_tail, next_labels
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
    """Evaluate a tile of images in each block of the grid.

    Args:
        pixels: (count, 784) uint8.
        labels: (count,) uint8.
        count: how many images there are; the grid has a block for each ROWS images.
        parameters: (785,) float32, the weights, then the bias.
        found: (blocks, 2) int64, receives for each tile the sum of its losses in LOSS_UNITs, and
            three counts in one number: threes that are classified correctly, COUNT_UNIT for each
            such seven, and COUNT_UNIT**2 for each three. One sum over a tile is quicker than three.
        ROWS: images in a tile.
    """
    block = tl.program_id(0)
    left = count - block * ROWS
    head, tail, tile_labels = _load(pixels, labels, block * ROWS, left, ROWS)
    head_weights, tail_weights, bias = _load_parameters(parameters)
    head_pixels, tail_pixels = head.to(tl.float32), tail.to(tl.float32)
    scores = _scores(head_pixels, tail_pixels, head_weights, tail_weights, bias)
    is_image = tl.arange(0, ROWS) < left
    threes = is_image & (tile_labels != 0)
    sevens = is_image & (tile_labels == 0)
    losses = tl.where(is_image, _losses(_sigmoid(scores), threes), 0)
    is_called_three = scores > 0  # exactly 0 is a seven, as in the notes' `preds > 0.0`
    counts = (threes & is_called_three).to(tl.int64)
    counts += (sevens & ~is_called_three).to(tl.int64) * COUNT_UNIT
    counts += threes.to(tl.int64) * COUNT_UNIT * COUNT_UNIT
    tl.store(found + 2 * block, tl.sum(losses, axis=0))
    tl.store(found + 2 * block + 1, tl.sum(counts, axis=0))
