"""Tests of every number that the learner's notes print, to the last digit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, tensor

from mnist37.data import Data, load
from mnist37.model import accuracy, init_params, linear1, mnist_loss, sigmoid


@pytest.fixture(scope="module")
def data() -> Data:
    return load()


@pytest.fixture
def params() -> tuple[Tensor, Tensor]:
    """Return the weights and bias as the notes draw them, after two draws of an earlier chapter."""
    torch.manual_seed(42)
    torch.randn(20)
    torch.randn(3)
    return init_params((28 * 28, 1)), init_params(1)


def as_printed(values: Tensor) -> list[str]:
    """Return the numbers of a tensor as torch prints them."""
    return [f"{value:.4f}" for value in values.flatten().tolist()]


def test_shapes(data: Data) -> None:
    assert data.train_x.shape == torch.Size([12396, 784])
    assert data.train_y.shape == torch.Size([12396, 1])
    x, y = data.dset[0]
    assert x.shape == torch.Size([784])
    assert torch.equal(y, tensor([1]))
    assert repr(y) == "tensor([1])"
    assert len(data.dset) == 12396
    assert len(data.valid_dset) == 2038


def test_prediction_for_one_image(data: Data, params: tuple[Tensor, Tensor]) -> None:
    weights, bias = params
    one = (data.train_x[0] * weights.T).sum() + bias
    assert as_printed(one) == ["20.2336"]
    assert as_printed(linear1(data.train_x, weights, bias)[0]) == ["20.2336"]


def test_predictions(data: Data, params: tuple[Tensor, Tensor]) -> None:
    preds = linear1(data.train_x, *params)
    assert preds.shape == torch.Size([12396, 1])
    assert as_printed(preds[:3]) == ["20.2336", "17.0644", "15.2384"]
    assert as_printed(preds[-3:]) == ["18.3804", "23.8567", "28.6816"]
    assert repr(preds) == (
        "tensor([[20.2336],\n        [17.0644],\n        [15.2384],\n        ...,\n"
        "        [18.3804],\n        [23.8567],\n        [28.6816]], grad_fn=<AddBackward0>)"
    )


def test_corrects(data: Data, params: tuple[Tensor, Tensor]) -> None:
    corrects = (linear1(data.train_x, *params) > 0.0).float() == data.train_y
    assert corrects[:3].flatten().tolist() == [True] * 3
    assert corrects[-3:].flatten().tolist() == [False] * 3


def test_accuracy_does_not_notice_a_small_change(data: Data, params: tuple[Tensor, Tensor]) -> None:
    weights, bias = params
    assert accuracy(linear1(data.train_x, weights, bias), data.train_y).item() == 0.4912068545818329
    with torch.no_grad():
        weights[0] *= 1.0001
    assert accuracy(linear1(data.train_x, weights, bias), data.train_y).item() == 0.4912068545818329


def test_loss_of_the_example() -> None:
    prds, trgts = tensor([0.9, 0.4, 0.2]), tensor([1, 0, 1])
    assert repr(torch.where(trgts == 1, 1 - prds, prds)) == "tensor([0.1000, 0.4000, 0.8000])"
    assert repr(mnist_loss(prds, trgts)) == "tensor(0.4333)"
    assert repr(mnist_loss(tensor([0.9, 0.4, 0.8]), trgts)) == "tensor(0.2333)"


def test_the_loss_has_a_gradient_and_accuracy_has_none(
    data: Data, params: tuple[Tensor, Tensor]
) -> None:
    weights, bias = params
    preds = linear1(data.train_x, weights, bias)
    # A comparison has no derivative, so autograd does not connect the accuracy to the weights.
    assert not accuracy(preds, data.train_y).requires_grad
    with torch.no_grad():
        for pixel in range(0, 784, 28):
            moved = weights.clone()
            moved[pixel] += 1e-6
            after = accuracy(linear1(data.train_x, moved, bias), data.train_y)
            assert after == accuracy(preds, data.train_y)
    loss = mnist_loss(sigmoid(preds), data.train_y)
    loss.backward()
    assert weights.grad is not None
    assert weights.grad.abs().max() > 1e-4


def test_sigmoid_is_torchs() -> None:
    x = torch.linspace(-20, 20, 401)
    torch.testing.assert_close(sigmoid(x), torch.sigmoid(x))
    assert sigmoid(tensor(0.0)) == 0.5
