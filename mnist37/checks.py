"""Checks of the tensors that mnist37.model is given: torch broadcasts a wrong shape in silence.

A wrong shape, or a score where a probability belongs, gives a loss that looks right and teaches
nothing. So each check raises an error that names the argument, what came, and what would be right.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensors(**values: object) -> None:
    """Raise TypeError unless each of the values, by its name, is a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise TypeError(f"{name}: got {kind}; must be a tensor: torch.as_tensor({name})")


def check_linear(xb: Tensor, weights: Tensor, bias: Tensor) -> None:
    """Raise unless images, weights and bias fit, as xb (N, P) @ weights (P, K) + bias (K,) do.

    One image alone (P,) fits too.

    Raises:
        TypeError: an argument is no tensor, the weights are no floats, or the images or the bias
            have another dtype than the weights.
        ValueError: a shape is another one.
    """
    check_tensors(xb=xb, weights=weights, bias=bias)
    if weights.ndim != 2:
        raise ValueError(
            f"weights: got shape {tuple(weights.shape)}; must have a row for each pixel and one"
            " column: init_params((28 * 28, 1))"
        )
    if not weights.is_floating_point():
        raise TypeError(f"weights: got {weights.dtype}; must be floats: weights.float()")
    pixels, columns = weights.shape
    if pixels == 1 != columns and xb.shape[-1:] == (columns,):
        raise ValueError(
            f"weights: got shape (1, {columns}); must have a row for each pixel and one column:"
            " weights.T"
        )
    if xb.shape != (pixels,):
        check_rows(xb, pixels)
    if bias.shape not in ((columns,), ()):
        raise ValueError(
            f"bias: got shape {tuple(bias.shape)}; must be ({columns},): init_params({columns})"
        )
    if xb.dtype != weights.dtype:
        remedy = "xb.to(weights.dtype)"
        if not xb.is_floating_point() and xb.dtype != torch.bool:
            remedy = f"pixels in 0..1, not in 0..255: {remedy} / 255"
        raise TypeError(f"xb: got {xb.dtype}, but weights are {weights.dtype}; give {remedy}")
    if bias.dtype != weights.dtype:
        raise TypeError(f"bias: got {bias.dtype}, but weights are {weights.dtype}")


def check_rows(xb: Tensor, pixels: int) -> None:
    """Raise ValueError unless images are (N, pixels)."""
    if xb.ndim != 2 or xb.shape[1] != pixels:
        remedy = ""
        if pixels in (xb.numel(), xb.shape[1:].numel()):
            remedy = f": xb.view(-1, {pixels})"
        elif xb.shape[:1] == (pixels,) and xb.ndim == 2:
            remedy = ": xb.T"  # in this shape, view would mix the images
        raise ValueError(
            f"xb: got shape {tuple(xb.shape)}; must be (N, {pixels}), a row for each image{remedy}"
        )


def check_targets(name: str, values: Tensor, targets: Tensor) -> None:
    """Raise unless there is one target, 1 or 0, for each of the values.

    Args:
        name: of the values, for the error.
        values: what the model says of each image.
        targets: of the same shape, of any dtype.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: a shape is another one, there is no image, or a target is neither 1 nor 0.
    """
    check_tensors(**{name: values, "targets": targets})
    if values.shape != targets.shape:
        shapes = f"got shapes {tuple(values.shape)} and {tuple(targets.shape)}"
        remedy = ""
        if values.squeeze().shape == targets.squeeze().shape:
            remedy = f": targets.view{tuple(values.shape)}"
        raise ValueError(f"{name} and targets: {shapes}; must have the same shape{remedy}")
    if not values.numel():
        raise ValueError(f"{name}: got no image; the mean of nothing is not a number")
    if wrong := targets[(targets != 0) & (targets != 1)].tolist():
        raise ValueError(f"targets: got {wrong[0]:.9g}; must be 1 for a three and 0 for a seven")


def check_probabilities(predictions: Tensor) -> None:
    """Raise unless predictions are probabilities.

    Raises:
        TypeError: they are no floats.
        ValueError: one is not in 0..1.
    """
    if not predictions.is_floating_point():
        raise TypeError(f"predictions: got {predictions.dtype}; must be floats in 0..1")
    low, high = (extreme.item() for extreme in predictions.detach().aminmax())
    if not (low >= 0 and high <= 1):  # not a number is neither
        raise ValueError(
            f"predictions: got {low:.9g} to {high:.9g}; must be probabilities in 0..1, so scores go"
            " through the sigmoid first: mnist_loss(sigmoid(preds), targets)"
        )
