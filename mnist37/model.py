"""The model and its loss, under the names that the notes give them, in the order of the lesson.

After chapter 4 of Howard and Gugger, Deep Learning for Coders with fastai and PyTorch. The lesson,
`mnist37 lesson`, goes through it. A shape that torch would broadcast in silence is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mnist37.checks import check_linear, check_probabilities, check_rows, check_targets


def init_params(
    size: int | tuple[int, ...], std: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Draw random parameters from a normal distribution of mean 0 and standard deviation `std`."""
    return (torch.randn(size, generator=generator) * std).requires_grad_()


def linear1(xb: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return each image's score (N, 1), a weighted sum of its pixels; above 0 it means "a 3".

    TypeError and ValueError name what does not fit xb (N, 784), weights (784, 1) and bias (1,).
    """
    check_linear(xb, weights, bias)
    return xb @ weights + bias  # (N, 784) @ (784, 1) + (1,) -> (N, 1)


def sigmoid(x: Tensor) -> Tensor:
    """Squeeze any number into 0..1, smoothly and always upwards, so that a score is a probability.

    torch.sigmoid computes the same function faster.
    """
    # Below -88.7, exp(-x) is infinite in float32, and autograd would make its slope 0 * inf: NaN.
    return 1 / (1 + torch.exp(-torch.clamp(x, min=-88)))


def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean distance of predictions from their targets, 1 for a three, 0 for a seven.

    The chapter later moves the sigmoid into this function. Here it stays outside, as in the notes:
    mnist_loss(sigmoid(preds), targets).

    Args:
        predictions: probabilities, in 0..1; scores would give a loss below 0.
        targets: of the same shape, 1 or 0.

    Raises:
        TypeError, ValueError: an argument is no tensor, or a shape or a value is another one.
    """
    check_targets("predictions", predictions, targets)
    check_probabilities(predictions)
    return torch.where(targets == 1, 1 - predictions, predictions).mean()


def accuracy(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the share of images that linear1 classifies correctly.

    A small change of a weight hardly ever changes this share, so its slope is 0 almost everywhere:
    people can read it, but training cannot learn from it.

    Args:
        preds: (N, 1), from linear1, before the sigmoid: a probability is always above 0.
        targets: (N, 1), 1 or 0.

    Raises:
        TypeError, ValueError: no tensor, another shape, or a target that is neither 1 nor 0.
    """
    check_targets("preds", preds, targets)
    return ((preds > 0.0).float() == targets).float().mean()


def gradient(xb: Tensor, yb: Tensor, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope of mnist_loss(sigmoid(linear1(xb))) along each weight and the bias.

    By the chain rule, with z = linear1(xb), p = sigmoid(z) and N images:
        dloss/dp = -1/N for a three, 1/N for a seven;   dp/dz = p (1 - p);   dz/dweights = xb.
    Autograd computes the same slopes; this function builds no graph.

    Returns:
        The gradients of the weights (784, 1) and of the bias (1,), in their shapes.

    Raises:
        TypeError, ValueError: no tensor, another shape, or a target that is neither 1 nor 0.
    """
    p = torch.sigmoid(linear1(xb, weights, bias))  # (N, 1)
    check_rows(xb, len(weights))
    check_targets("scores", p, yb)
    dloss_dz = (1 - 2 * yb.to(p.dtype)) / p.numel() * p * (1 - p)  # (N, 1); 1 - 2 is 255 in uint8
    return xb.T @ dloss_dz, dloss_dz.sum_to_size(bias.shape)


@torch.no_grad()
def gradient_step(xb: Tensor, yb: Tensor, weights: Tensor, bias: Tensor, lr: float) -> None:
    """Take one step of SGD: move the parameters, in place, a little down the slope of the loss."""
    weights_grad, bias_grad = gradient(xb, yb, weights, bias)
    weights -= weights_grad * lr
    bias -= bias_grad * lr
