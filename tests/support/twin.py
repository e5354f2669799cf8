"""The expected parameters of a server's model, computed by the core without a server."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mnist37.data import Data, load
from mnist37.host import Host, HostExamples
from mnist37.kernels import Labels, Pixels
from mnist37.optimizer import Sgd
from mnist37.training import Datasets, MiniBatches


@cache
def data() -> Data:
    return load()


@cache
def datasets() -> Datasets:
    return Datasets(data(), Host())


class Twin:
    """A model that makes a server's updates. Its digests must equal the server's."""

    def __init__(self, seed: int = 42, std: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn((784, 1), generator=generator) * std
        bias = torch.randn(1, generator=generator) * std
        self.parameters: Tensor = torch.cat([weights.flatten(), bias])
        self.batch_cursor = 0

    def train(
        self, epochs: int, lr: float = 1.0, batch_size: int = 256, seed: int = 42, first: int = 1
    ) -> None:
        batches: MiniBatches = datasets().mini_batches(seed, batch_size)
        for epoch in range(first, first + epochs):
            batches.sgd(self.parameters.numpy(), batches.order(epoch), Sgd(lr))

    def step(self, lr: float = 1.0) -> None:
        batches = datasets().mini_batches(42, 256)
        batches.sgd(self.parameters.numpy(), np.array([self.batch_cursor]), Sgd(lr))
        self.batch_cursor = (self.batch_cursor + 1) % len(batches)

    def step_on(self, pixels: Pixels, labels: Labels, lr: float = 1.0) -> None:
        examples = HostExamples(pixels, labels)
        examples.sgd(self.parameters.numpy(), np.zeros(1, np.int64), len(labels), Sgd(lr))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.parameters.numpy().astype("<f4").tobytes()).hexdigest()

    def probabilities(self, x: Tensor) -> Tensor:
        """Return the probabilities (N,) of images (N, 784) in 0..1, computed in float64."""
        parameters = self.parameters.double()
        return torch.sigmoid(x.double() @ parameters[:-1] + parameters[-1])
