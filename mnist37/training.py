"""SGD on mnist_loss at full speed, and the order in which a run sees the images.

The same step as mnist37.model's, laid out for the machine: the bias is the weight of a 785th
pixel that is always 1, the parameters are one vector, nothing is copied, and a step is four
operations of torch. The tests hold it against autograd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37.data import Data

PARAMETERS = 784 + 1  # the weights, then the bias

# Losses are added up as whole numbers of this unit: such a sum is exact, so it comes out the same
# in whatever order and pieces it is taken, on every device, in a run that was cut off and resumed.
# Of up to 16,384 images it is below 2**53, so that a float64 holds it.
LOSS_UNIT = 2.0**-39
MOST_IN_A_SUM = 16_384

sigmoid_backward = torch.ops.aten.sigmoid_backward.default  # (g, p) -> g * p * (1 - p)


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on some images."""

    loss: float  # mean of mnist_loss
    accuracy: float
    count: int  # of images


@dataclass(frozen=True)
class Examples:
    """Images and their labels on a device, ready for arithmetic."""

    inputs: Tensor  # (N, 785) float32: the pixels in 0..1, then a 1
    signs: Tensor  # (N,) float32: -1 for a three, 1 for a seven: the slope of N * loss along p
    # The loss is 1 - p of a three and p of a seven; in LOSS_UNITs, offset + slope * p.
    offsets: Tensor  # (N,) float64
    slopes: Tensor  # (N,) float64

    @classmethod
    def of(cls, x: Tensor, y: Tensor, device: torch.device) -> Examples:
        """From x (N, 784), float32 in 0..1 or uint8 in 0..255, and y (N, 1) or (N,), 1 = three."""
        inputs = torch.ones(len(x), PARAMETERS, device=device)
        inputs[:, :-1] = x.to(device)
        if x.dtype == torch.uint8:
            inputs[:, :-1] /= 255
        targets = y.reshape(-1).to(device, torch.float64)
        signs = 1 - 2 * targets
        return cls(inputs, signs.float(), targets / LOSS_UNIT, signs / LOSS_UNIT)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __getitem__(self, which: slice | Tensor) -> Examples:
        return Examples(
            self.inputs[which], self.signs[which], self.offsets[which], self.slopes[which]
        )

    def losses(self, probabilities: Tensor) -> Tensor:
        """Each image's loss (N,), a whole number of LOSS_UNITs, given its probability."""
        return probabilities.double().mul_(self.slopes).add_(self.offsets).round_()

    def loss(self, probabilities: Tensor) -> int:
        """The sum of the images' losses, in LOSS_UNITs, given the probability (N,) of each.

        Exact for up to MOST_IN_A_SUM images.
        """
        return int(self.losses(probabilities).sum().item())


def mean_loss(total: int, count: int) -> float:
    """The mean over `count` images whose losses sum up to `total` LOSS_UNITs."""
    return total * LOSS_UNIT / count


def sgd_step(parameters: Tensor, examples: Examples, lr: float, out: Tensor) -> None:
    """One step of SGD: moves `parameters` (785,) in place.

    Args:
        parameters: the weights, then the bias; float32.
        examples: the mini-batch, of N images.
        lr: the learning rate.
        out: (N,) float32, is given the probabilities from before the update.
    """
    torch.mv(examples.inputs, parameters, out=out).sigmoid_()  # (N, 785) @ (785,) -> (N,)
    slopes = sigmoid_backward(examples.signs, out)  # N * dloss/dz, (N,)
    parameters.addmv_(examples.inputs.t(), slopes, alpha=-lr / len(examples))


def evaluate(parameters: Tensor, parts: Iterable[Examples]) -> Evaluation:
    """The loss and the accuracy of `parameters` (785,) on all of `parts`.

    Args:
        parameters: the weights, then the bias.
        parts: each of up to MOST_IN_A_SUM images.
    """
    loss = correct = count = 0
    for examples in parts:
        scores = torch.mv(examples.inputs, parameters)
        correct += int(((scores > 0) == (examples.signs < 0)).sum())
        loss += examples.loss(scores.sigmoid_())
        count += len(examples)
    return Evaluation(mean_loss(loss, count), correct / count, count)


def permutation(count: int, seed: int, *place: int) -> NDArray[np.int64]:
    """A permutation of range(count) that depends on nothing but the arguments.

    The order of random 64-bit keys: numpy promises that the raw numbers of PCG64 stay the same in
    all its versions, as neither its nor torch's own permutations do.

    Args:
        count: how many things to permute.
        seed: 0 to 2**64 - 1.
        place: what the seed is used for; another place, another permutation.
    """
    keys = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place)).random_raw(count)
    return np.argsort(keys, kind="stable")


class MiniBatches:
    """The training images in the order of one seed, cut into mini-batches; the last may be short.

    Reading the images in a new order each epoch would cost as much again as the arithmetic. So
    they are permuted once, in memory, and each epoch permutes the order of the mini-batches.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int) -> None:
        order = torch.from_numpy(permutation(len(examples), seed)).to(examples.inputs.device)
        self.examples = examples[order]
        self.probabilities = torch.empty_like(self.examples.signs)
        self.seed = seed
        self.batch_size = batch_size
        self._starts = range(0, len(examples), batch_size)
        # Slices of the above, made when first used: with tiny batches there are thousands.
        self._batches: dict[int, tuple[Examples, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def order(self, epoch: int) -> list[int]:
        """Which mini-batch comes when in an epoch of a run (from 1)."""
        order: list[int] = permutation(len(self), self.seed, self.batch_size, epoch).tolist()
        return order

    def step(self, parameters: Tensor, index: int, lr: float) -> None:
        """One step of SGD on mini-batch `index`; keeps the probabilities from before it."""
        batch = self._batches.get(index)
        if batch is None:
            part = slice(self._starts[index], self._starts[index] + self.batch_size)
            batch = self._batches[index] = self.examples[part], self.probabilities[part]
        sgd_step(parameters, batch[0], lr, out=batch[1])

    def loss(self, indices: list[int]) -> tuple[int, int]:
        """What the last step on each of these mini-batches found, before its update.

        Returns:
            The sum of the images' losses, in LOSS_UNITs, and how many images they are.
        """
        if len(indices) == 1:
            examples, probabilities = self._batches[indices[0]]
            return examples.loss(probabilities), len(examples)
        losses = self.examples.losses(self.probabilities)
        if len(indices) == len(self):
            return int(losses.sum().item()), len(self.examples)
        by_batch = np.add.reduceat(losses.cpu().numpy(), self._starts)
        last = len(self) - 1
        short = len(self._starts) * self.batch_size - len(self.examples)
        count = len(indices) * self.batch_size - (short if last in indices else 0)
        return int(by_batch[indices].sum()), count


class Sets:
    """The training and the validation images, resident on a device."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self.train = Examples.of(data.train_x, data.train_y, device)
        self.valid = Examples.of(data.valid_x, data.valid_y, device)
        # A permuted copy takes 39 MB: one is kept for the run and one for the single steps.
        self.mini_batches = lru_cache(maxsize=2)(self._mini_batches)

    def _mini_batches(self, seed: int, batch_size: int) -> MiniBatches:
        return MiniBatches(self.train, seed, batch_size)
