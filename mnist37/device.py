"""The arithmetic on a CUDA device, in torch: mnist37.kernels does the same on the CPU.

The bias is the weight of a 785th pixel that is always 1, the parameters are one vector, nothing is
copied, and a step is four operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist37.kernels import Labels, Pixels
from mnist37.losses import LOSS_UNIT

sigmoid_backward = torch.ops.aten.sigmoid_backward.default  # (g, p) -> g * p * (1 - p)


@dataclass(frozen=True)
class DeviceExamples:
    """As mnist37.training.Examples says."""

    inputs: Tensor  # (N, 785) float32: the pixels in 0..1, then a 1
    signs: Tensor  # (N,) float32: -1 for a three, 1 for a seven: the slope of N * loss along p

    @classmethod
    def of(cls, pixels: Pixels, labels: Labels, device: torch.device) -> Self:
        """Images (N, 784) and their labels (N,), put on the device."""
        inputs = torch.ones(len(pixels), 785, device=device)
        inputs[:, :-1] = torch.tensor(pixels, device=device)
        inputs[:, :-1] /= 255
        return cls(inputs, 1 - 2 * torch.tensor(labels, dtype=torch.float32, device=device))

    def __len__(self) -> int:
        return len(self.signs)

    def permuted(self, order: NDArray[np.int64]) -> Self:
        """See Examples."""
        index = torch.from_numpy(order).to(self.inputs.device)
        return type(self)(self.inputs[index], self.signs[index])

    def sgd(self, parameters: Tensor, order: NDArray[np.int64], batch_size: int, lr: float) -> int:
        """See Examples."""
        losses = torch.zeros((), dtype=torch.int64, device=parameters.device)
        for index in order.tolist():
            batch = slice(index * batch_size, (index + 1) * batch_size)
            inputs, signs = self.inputs[batch], self.signs[batch]
            probabilities = torch.mv(inputs, parameters).sigmoid_()  # (N, 785) @ (785,) -> (N,)
            losses += _losses(probabilities, signs).sum()
            slopes = sigmoid_backward(signs, probabilities)  # N * dloss/dz, (N,)
            parameters.addmv_(inputs.t(), slopes, alpha=-lr / len(signs))
        return int(losses.item())

    def total(self, parameters: Tensor) -> tuple[int, int]:
        """See Examples."""
        scores = torch.mv(self.inputs, parameters)
        correct = int(((scores > 0) == (self.signs < 0)).sum())
        return int(_losses(scores.sigmoid_(), self.signs).sum().item()), correct


def _losses(probabilities: Tensor, signs: Tensor) -> Tensor:
    """Each image's loss (N,) in LOSS_UNITs: 1 - p of a three, p of a seven."""
    losses = torch.where(signs < 0, 1 - probabilities.double(), probabilities.double())
    return (losses / LOSS_UNIT).round_().long()
