"""The optimizer's settings, as one value that goes from the caller's request to the kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sgd:
    """The settings of stochastic gradient descent."""

    learning_rate: float = 1.0  # above 0; the kernels take it as a float32
