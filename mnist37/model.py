"""The model and its loss, under the names that the notes give them, in the order of the lesson.

After chapter 4 of Howard and Gugger, Deep Learning for Coders with fastai and PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def init_params(
    size: int | tuple[int, ...], std: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Draw random parameters from a normal distribution of mean 0 and standard deviation `std`."""
    return (torch.randn(size, generator=generator) * std).requires_grad_()


def linear1(xb: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return each image's score, a weighted sum of its pixels; above 0 it means "a 3".

    Every weighted pixel of an empty image is 0. Only the bias can give it another score than 0.
    """
    return xb @ weights + bias  # (N, 784) @ (784, 1) + (1,) -> (N, 1)


def sigmoid(x: Tensor) -> Tensor:
    """Squeeze any number into 0..1, smoothly and always upwards, so that a score is a probability.

    torch.sigmoid computes the same function faster.
    """
    return 1 / (1 + torch.exp(-x))


def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean distance of predictions from their targets, 1 for a three, 0 for a seven.

    Args:
        predictions: probabilities, in 0..1.
        targets: of the same shape, 1 or 0.
    """
    return torch.where(targets == 1, 1 - predictions, predictions).mean()


def accuracy(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the share of images that linear1 classifies correctly.

    A small change of a weight hardly ever changes this share, so its slope is 0 almost everywhere:
    people can read it, but training cannot learn from it.

    Args:
        preds: (N, 1), from linear1, before the sigmoid.
        targets: (N, 1), 1 or 0.
    """
    return ((preds > 0.0).float() == targets).float().mean()


def gradient(xb: Tensor, yb: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope of mnist_loss(sigmoid(linear1(xb))) along each weight and the bias.

    By the chain rule, with z = linear1(xb), p = sigmoid(z) and N images:
        dloss/dp = -1/N for a three, 1/N for a seven;   dp/dz = p (1 - p);   dz/dweights = xb.
    Autograd computes the same slopes; this function builds no graph.

    Returns:
        The gradients of the weights (784, 1) and of the bias (1,).
    """
    p = torch.sigmoid(linear1(xb, weights, bias))  # (N, 1)
    dloss_dz = (1 - 2 * yb) / len(xb) * p * (1 - p)  # (N, 1)
    return xb.T @ dloss_dz, dloss_dz.sum(0)


@torch.no_grad()
def gradient_step(xb: Tensor, yb: Tensor, weights: Tensor, bias: Tensor, lr: float) -> None:
    """Take one step of SGD: move the parameters, in place, a little down the slope of the loss."""
    weights_grad, bias_grad = gradient(xb, yb, weights, bias)
    weights -= weights_grad * lr
    bias -= bias_grad * lr
