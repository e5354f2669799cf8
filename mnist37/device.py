"""The arithmetic on a CUDA device: the loops of mnist37.kernels, in Triton, which torch brings.

An epoch is one launch of one block of threads. Its steps depend on each other, and each is so small
that to launch or to synchronise more of the device would take longer than the step; the images
stay in the device's cache. One block also adds in one order, so the bits never change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from mnist37.kernels import Floats, Labels, Pixels
from mnist37.training import Part, Stepped, Trained

Tile: TypeAlias = Any  # what a kernel has of Triton: numbers, arrays of them, where they are

ROWS = 16  # images at a time, one or more for each warp
WARPS = 16
STEPS_A_LAUNCH = 1_024  # at the most: a run is stopped between two launches

_PIXELS = tl.constexpr(784)
_COLUMNS = tl.constexpr(1024)  # the next power of 2, as Triton's tiles have to be
_UNITS = tl.constexpr(2.0**39)  # LOSS_UNITs in a loss of 1


@dataclass(frozen=True)
class DeviceExamples:
    """As mnist37.training.Examples says.

    Triton launches on a thread's current device, which is the first one; so each launch names the
    tensors' own.
    """

    pixels: Tensor  # (N, 784) uint8
    labels: Tensor  # (N,) uint8

    @classmethod
    def of(cls, pixels: Pixels, labels: Labels, device: torch.device) -> Self:
        """Images (N, 784) and their labels (N,), put on the device."""
        return cls(torch.tensor(pixels, device=device), torch.tensor(labels, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """See Examples."""
        index = torch.from_numpy(order).to(self.labels.device)
        return type(self)(self.pixels[index], self.labels[index])

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, lr: float) -> int:
        """See Examples."""
        device = parameters.device
        total = torch.empty((), dtype=torch.int64, device=device)
        with torch.cuda.device_of(parameters):
            _sgd[1,](
                self.pixels,
                self.labels,
                torch.from_numpy(order).to(device),
                len(order),
                len(self),
                batch_size,
                parameters,
                lr,
                total,
                ROWS=ROWS,
                num_warps=WARPS,
            )
        return int(total.item())

    def steps(
        self,
        parameters: Tensor,
        order: NDArray[np.int64],
        batch_size: int,
        rates: Floats,
        bound: float,
    ) -> Stepped:
        """See Examples; a launch each."""
        found = Stepped.empty(len(order))
        for step, rate in enumerate(rates.tolist()):
            found.losses[step] = self.sgd(parameters, order[step : step + 1], batch_size, rate)
            found.parameters[step] = parameters.cpu().numpy()
            if not np.abs(found.parameters[step], dtype=np.float64).sum() <= bound:
                return found.first(step)
        return found

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """See Examples."""
        blocks = math.ceil(len(self) / ROWS)
        found = torch.empty((2, blocks), dtype=torch.int64, device=parameters.device)
        with torch.cuda.device_of(parameters):
            _evaluate[blocks,](
                self.pixels, self.labels, len(self), parameters, found[0], found[1], ROWS=ROWS
            )
        total, correct = found.sum(1).tolist()
        return total, correct

    def train(self, parameters: Tensor, part: Part, valid: Self) -> Trained:
        """See Examples; a launch an epoch, or a thousand steps of one."""
        found = Trained.empty(part)
        steps, start, loss, ended = 0, part.start, part.loss, 0
        for order in part.orders:
            while start < len(order) and steps < part.most and not part.stop[0]:
                some = order[start : start + min(STEPS_A_LAUNCH, part.most - steps)]
                loss += self.sgd(parameters, some, part.batch_size, part.learning_rate)
                steps += len(some)
                start += len(some)
            if start < len(order):
                break
            found.totals[ended] = loss, *valid.total(parameters)
            found.parameters[ended] = parameters.cpu().numpy()
            start, loss, ended = 0, 0, ended + 1
        return found.of(steps, loss, ended)


@triton.jit
def _probabilities(images: Tile, weights: Tile, bias: Tile) -> Tile:
    """Of images (ROWS, _COLUMNS), that each is a three; and their scores."""
    scores = tl.sum(images * weights[None, :], axis=1) + bias
    return 1 / (1 + tl.exp(-scores)), scores


@triton.jit
def _losses(probabilities: Tile, threes: Tile, there: Tile) -> Tile:
    """In LOSS_UNITs."""
    exact = probabilities.to(tl.float64)
    losses = tl.where(threes, 1 - exact, exact) * _UNITS
    return tl.where(there, (losses + 0.5).to(tl.int64), 0)


@triton.jit(do_not_specialize=["steps", "count", "batch_size"])
def _sgd(
    pixels: Tile,
    labels: Tile,
    order: Tile,
    steps: Tile,
    count: Tile,
    batch_size: Tile,
    parameters: Tile,
    learning_rate: Tile,
    total: Tile,
    ROWS: tl.constexpr,  # noqa: N803
) -> None:
    """See mnist37.kernels.sgd."""
    column = tl.arange(0, _COLUMNS)
    inside = column < _PIXELS
    weights = tl.load(parameters + column, mask=inside, other=0.0)
    bias = tl.load(parameters + _PIXELS)
    losses = tl.zeros([ROWS], tl.int64)
    for step in range(steps):
        first = tl.load(order + step) * batch_size
        size = tl.minimum(count - first, batch_size)
        scaled = weights / 255  # for pixels of 0 to 255
        # Added up over the rows once a step: a sum over the warps is slow.
        slopes = tl.zeros([ROWS, _COLUMNS], tl.float32)  # N * dloss/dweights, for the same
        bias_slopes = tl.zeros([ROWS], tl.float32)
        for start in range(0, size, ROWS):
            row = start + tl.arange(0, ROWS)
            there = row < size
            places = (first + row)[:, None] * _PIXELS + column[None, :]
            images = tl.load(pixels + places, mask=there[:, None] & inside[None, :], other=0)
            images = images.to(tl.float32)
            threes = tl.load(labels + first + row, mask=there, other=0) != 0
            p, _ = _probabilities(images, scaled, bias)
            losses += _losses(p, threes, there)
            slope = tl.where(threes, -p * (1 - p), p * (1 - p))  # N * dloss/dscore
            slope = tl.where(there, slope, 0.0)
            slopes += images * slope[:, None]
            bias_slopes += slope
        rate = learning_rate / size
        weights -= rate * (tl.sum(slopes, axis=0) / 255)
        bias -= rate * tl.sum(bias_slopes, axis=0)
    tl.store(parameters + column, weights, mask=inside)
    tl.store(parameters + _PIXELS, bias)
    tl.store(total, tl.sum(losses, axis=0))


@triton.jit(do_not_specialize=["count"])
def _evaluate(
    pixels: Tile,
    labels: Tile,
    count: Tile,
    parameters: Tile,
    totals: Tile,
    corrects: Tile,
    ROWS: tl.constexpr,  # noqa: N803
) -> None:
    """See mnist37.kernels.evaluate; each block of threads has ROWS images, and sums of its own."""
    column = tl.arange(0, _COLUMNS)
    inside = column < _PIXELS
    weights = tl.load(parameters + column, mask=inside, other=0.0) / 255
    bias = tl.load(parameters + _PIXELS)
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    there = row < count
    places = row[:, None] * _PIXELS + column[None, :]
    images = tl.load(pixels + places, mask=there[:, None] & inside[None, :], other=0)
    threes = tl.load(labels + row, mask=there, other=0) != 0
    p, scores = _probabilities(images.to(tl.float32), weights, bias)
    right = tl.where(there, ((scores > 0) == threes).to(tl.int64), 0)
    tl.store(totals + block, tl.sum(_losses(p, threes, there), axis=0))
    tl.store(corrects + block, tl.sum(right, axis=0))
