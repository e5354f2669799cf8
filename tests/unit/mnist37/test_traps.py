"""Tests of a learner's mistakes that torch takes in silence, and mnist37.model refuses in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, tensor

from mnist37.data import load
from mnist37.model import (
    accuracy,
    gradient,
    gradient_step,
    init_params,
    linear1,
    mnist_loss,
    sigmoid,
)

X = torch.rand(4, 784, generator=torch.Generator().manual_seed(1))
Y = tensor([[1], [1], [0], [0]])
WEIGHTS, BIAS = torch.zeros(784, 1), torch.zeros(1)
P = tensor([[0.9], [0.4], [0.2], [0.1]])

REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "targets in a row": (
        lambda: mnist_loss(P, Y.view(-1)),
        ValueError,
        "predictions and targets: got shapes (4, 1) and (4,); must have the same shape:"
        " targets.view(4, 1)",
    ),
    "predictions in a row": (
        lambda: mnist_loss(P.view(-1), Y),
        ValueError,
        "predictions and targets: got shapes (4,) and (4, 1); must have the same shape:"
        " targets.view(4,)",
    ),
    "other targets": (
        lambda: mnist_loss(P, Y[:3]),
        ValueError,
        "predictions and targets: got shapes (4, 1) and (3, 1); must have the same shape",
    ),
    "scores": (
        lambda: mnist_loss(tensor([[20.25], [-3.5]]), Y[1:3]),
        ValueError,
        "predictions: got -3.5 to 20.25; must be probabilities in 0..1, so scores go through the"
        " sigmoid first: mnist_loss(sigmoid(preds), targets)",
    ),
    "no numbers": (
        lambda: mnist_loss(torch.full((4, 1), math.nan), Y),
        ValueError,
        "predictions: got nan to nan; must be probabilities in 0..1, so scores go through the"
        " sigmoid first: mnist_loss(sigmoid(preds), targets)",
    ),
    "predictions a little above 1": (
        lambda: mnist_loss(tensor([[1.0000001]]), Y[:1]),
        ValueError,
        "predictions: got 1.00000012 to 1.00000012; must be probabilities in 0..1, so scores go"
        " through the sigmoid first: mnist_loss(sigmoid(preds), targets)",
    ),
    "predictions of numpy, as the client gives them": (
        lambda: mnist_loss(P.numpy(), Y),  # type: ignore[arg-type]
        TypeError,
        "predictions: got ndarray; must be a tensor: torch.as_tensor(predictions)",
    ),
    "targets in a list": (
        lambda: mnist_loss(P.view(-1), [1, 1, 0, 0]),  # type: ignore[arg-type]
        TypeError,
        "targets: got list; must be a tensor: torch.as_tensor(targets)",
    ),
    "targets of another form": (
        lambda: mnist_loss(P.view(2, 2), Y),
        ValueError,
        "predictions and targets: got shapes (2, 2) and (4, 1); must have the same shape",
    ),
    "whole predictions": (
        lambda: mnist_loss(Y, Y),
        TypeError,
        "predictions: got torch.int64; must be floats in 0..1",
    ),
    "true predictions": (
        lambda: mnist_loss(Y == 1, Y),
        TypeError,
        "predictions: got torch.bool; must be floats in 0..1",
    ),
    "digits as targets": (
        lambda: mnist_loss(P, tensor([[3], [3], [7], [7]])),
        ValueError,
        "targets: got 3; must be 1 for a three and 0 for a seven",
    ),
    "a half as a target": (
        lambda: mnist_loss(P, tensor([[1.0], [0.5], [0.0], [0.0]])),
        ValueError,
        "targets: got 0.5; must be 1 for a three and 0 for a seven",
    ),
    "no predictions": (
        lambda: mnist_loss(P[:0], Y[:0]),
        ValueError,
        "predictions: got no image; the mean of nothing is not a number",
    ),
    "no scores": (
        lambda: accuracy(P[:0], Y[:0]),
        ValueError,
        "preds: got no image; the mean of nothing is not a number",
    ),
    "accuracy of targets in a row": (
        lambda: accuracy(P, Y.view(-1)),
        ValueError,
        "preds and targets: got shapes (4, 1) and (4,); must have the same shape:"
        " targets.view(4, 1)",
    ),
    "accuracy of digits": (
        lambda: accuracy(P, 7 - 4 * Y),
        ValueError,
        "targets: got 3; must be 1 for a three and 0 for a seven",
    ),
    "a gradient of targets in a row": (
        lambda: gradient(X, Y.view(-1), WEIGHTS, BIAS),
        ValueError,
        "scores and targets: got shapes (4, 1) and (4,); must have the same shape:"
        " targets.view(4, 1)",
    ),
    "a gradient of no images": (
        lambda: gradient(X[:0], Y[:0], WEIGHTS, BIAS),
        ValueError,
        "scores: got no image; the mean of nothing is not a number",
    ),
    "a gradient of one image without its axis": (
        lambda: gradient(X[0], Y[0], WEIGHTS, BIAS),
        ValueError,
        "xb: got shape (784,); must be (N, 784), a row for each image: xb.view(-1, 784)",
    ),
    "a gradient of digits": (
        lambda: gradient(X, 7 - 4 * Y, WEIGHTS, BIAS),
        ValueError,
        "targets: got 3; must be 1 for a three and 0 for a seven",
    ),
    "an axis between": (
        lambda: linear1(X.unsqueeze(1), WEIGHTS, BIAS),
        ValueError,
        "xb: got shape (4, 1, 784); must be (N, 784), a row for each image: xb.view(-1, 784)",
    ),
    "images that are squares": (
        lambda: linear1(X.view(-1, 28, 28), WEIGHTS, BIAS),
        ValueError,
        "xb: got shape (4, 28, 28); must be (N, 784), a row for each image: xb.view(-1, 784)",
    ),
    "images in columns": (
        lambda: linear1(X.T, WEIGHTS, BIAS),
        ValueError,
        "xb: got shape (784, 4); must be (N, 784), a row for each image: xb.T",
    ),
    "images of another size": (
        lambda: linear1(X[:, :783], WEIGHTS, BIAS),
        ValueError,
        "xb: got shape (4, 783); must be (N, 784), a row for each image",
    ),
    "images of numpy": (
        lambda: linear1(X.numpy(), WEIGHTS, BIAS),  # type: ignore[arg-type]
        TypeError,
        "xb: got ndarray; must be a tensor: torch.as_tensor(xb)",
    ),
    "a bias that is a float": (
        lambda: gradient(X, Y, WEIGHTS, 0.0),  # type: ignore[arg-type]
        TypeError,
        "bias: got float; must be a tensor: torch.as_tensor(bias)",
    ),
    "weights in one row": (
        lambda: linear1(X, WEIGHTS.T, BIAS),
        ValueError,
        "weights: got shape (1, 784); must have a row for each pixel and one column: weights.T",
    ),
    "whole weights": (
        lambda: linear1(X, WEIGHTS.long(), BIAS.long()),
        TypeError,
        "weights: got torch.int64; must be floats: weights.float()",
    ),
    "a gradient of one weight": (
        lambda: gradient(X, Y, tensor(0.0), BIAS),
        ValueError,
        "weights: got shape (); must have a row for each pixel and one column:"
        " init_params((28 * 28, 1))",
    ),
    "weights in a row": (
        lambda: linear1(X, WEIGHTS.view(-1), BIAS),
        ValueError,
        "weights: got shape (784,); must have a row for each pixel and one column:"
        " init_params((28 * 28, 1))",
    ),
    "a bias for each image": (
        lambda: linear1(X, WEIGHTS, torch.zeros(4, 1)),
        ValueError,
        "bias: got shape (4, 1); must be (1,): init_params(1)",
    ),
    "bytes": (
        lambda: linear1(X.to(torch.uint8), WEIGHTS, BIAS),
        TypeError,
        "xb: got torch.uint8, but weights are torch.float32; give pixels in 0..1, not in 0..255:"
        " xb.to(weights.dtype) / 255",
    ),
    "bits": (
        lambda: linear1(X > 0.5, WEIGHTS, BIAS),
        TypeError,
        "xb: got torch.bool, but weights are torch.float32; give xb.to(weights.dtype)",
    ),
    "double images": (
        lambda: linear1(X.double(), WEIGHTS, BIAS),
        TypeError,
        "xb: got torch.float64, but weights are torch.float32; give xb.to(weights.dtype)",
    ),
    "a double bias": (
        lambda: linear1(X, WEIGHTS, BIAS.double()),
        TypeError,
        "bias: got torch.float64, but weights are torch.float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_words(case: str) -> None:
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        call()


def test_a_refused_step_leaves_the_parameters_as_they_were() -> None:
    weights, bias = init_params((784, 1)), init_params(1)
    before = weights.detach().clone(), bias.detach().clone()
    with pytest.raises(ValueError, match="same shape"):
        gradient_step(X, Y.view(-1), weights, bias, 1.0)
    assert torch.equal(weights.detach(), before[0])
    assert torch.equal(bias.detach(), before[1])


def test_a_step_moves_a_bias_without_an_axis_too() -> None:
    weights, bias = init_params((784, 1), 0.1), init_params(1)
    expected = weights.detach().clone(), bias.detach().clone()
    alone = bias.detach().squeeze()
    gradient_step(X, Y, *expected, 1.0)
    gradient_step(X, Y, weights, alone, 1.0)
    assert torch.equal(weights.detach(), expected[0])
    assert torch.equal(alone, expected[1].squeeze())


def test_the_gradient_of_several_outputs_is_autograds() -> None:
    weights, bias = init_params((784, 2), 0.1), init_params(2)
    targets = torch.cat([Y, 1 - Y], dim=1)
    mnist_loss(sigmoid(linear1(X, weights, bias)), targets).backward()
    weights_grad, bias_grad = gradient(X, targets, weights.detach(), bias.detach())
    torch.testing.assert_close(weights_grad, weights.grad)
    torch.testing.assert_close(bias_grad, bias.grad)


def test_what_torch_makes_of_the_worst_of_them() -> None:
    """The lesson shows these; without the refusals a learner sees nothing wrong."""
    row = Y.view(-1)
    assert torch.where(row == 1, 1 - P, P).mean() == 0.5  # every prediction with every target
    scores = tensor([[20.0], [20.0], [-20.0], [-20.0]])
    assert torch.where(Y == 1, 1 - scores, scores).mean() < 0
    assert (X.unsqueeze(1) @ WEIGHTS + BIAS).shape == (4, 1, 1)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float])
def test_the_dtype_of_targets_changes_nothing(dtype: torch.dtype) -> None:
    targets = Y.to(dtype)
    weights, bias = init_params((784, 1), 0.1), init_params(1)
    mnist_loss(sigmoid(linear1(X, weights, bias)), targets).backward()
    weights_grad, bias_grad = gradient(X, targets, weights.detach(), bias.detach())
    torch.testing.assert_close(weights_grad, weights.grad)
    torch.testing.assert_close(bias_grad, bias.grad)
    assert accuracy(tensor([[1.0], [1.0], [1.0], [-1.0]]), targets) == 0.75


def test_the_shipped_labels_are_targets() -> None:
    train = load().train
    x = torch.from_numpy(train.pixels[::100]).float() / 255
    bytes_, weights = torch.from_numpy(train.labels[::100]).unsqueeze(1), torch.zeros(784, 1)
    found = gradient(x, bytes_, weights, BIAS)
    expected = gradient(x, bytes_.long(), weights, BIAS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_everything_may_be_double() -> None:
    weights, bias = WEIGHTS.double(), BIAS.double()
    scores = linear1(X.double(), weights, bias)
    assert scores.dtype == torch.float64
    assert mnist_loss(sigmoid(scores), Y) == 0.5
    weights_grad, _ = gradient(X.double(), Y, weights, bias)
    assert weights_grad.dtype == torch.float64
    assert gradient(X.double()[:3], Y[:3], weights, bias)[1].item() == -1 / 12


def test_one_image_and_several_outputs_are_linear_too() -> None:
    assert linear1(X[0], WEIGHTS, BIAS).shape == (1,)
    assert linear1(X, torch.zeros(784, 30), torch.zeros(30)).shape == (4, 30)
    assert linear1(X, WEIGHTS, tensor(0.5)).tolist() == [[0.5]] * 4


@pytest.mark.parametrize("score", [-1e30, -1000.0, -89.0, -88.8, -88.7, -30.0, 0.0, 30.0, 1000.0])
def test_the_slope_of_sigmoid_is_torchs(score: float) -> None:
    def slope(function: Callable[[Tensor], Tensor]) -> Tensor:
        x = tensor(score, requires_grad=True)
        function(x).backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(slope(sigmoid), slope(torch.sigmoid))
    torch.testing.assert_close(sigmoid(tensor(score)), torch.sigmoid(tensor(score)))


def test_sigmoid_of_no_number_is_none() -> None:
    assert sigmoid(tensor(math.nan)).isnan()
