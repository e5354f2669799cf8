"""The fast step and the order of a run, against autograd and against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mnist37.data import Data, load
from mnist37.device import DeviceExamples
from mnist37.losses import LOSS_UNIT, mean_loss
from mnist37.model import accuracy, init_params, linear1, mnist_loss, sigmoid
from mnist37.training import (
    Examples,
    HostExamples,
    MiniBatches,
    Sets,
    evaluate,
    examples_on,
    permutation,
)

CPU = torch.device("cpu")
DEVICES = [CPU] + [torch.device("cuda")] * torch.cuda.is_available()


@pytest.fixture(scope="module")
def data() -> Data:
    return load()


@pytest.fixture(scope="module")
def sets(data: Data) -> Sets:
    return Sets(data, CPU)


@pytest.fixture(params=["kernels", *(f"torch on {device}" for device in DEVICES)])
def train(request: pytest.FixtureRequest, data: Data) -> Examples:
    """The training images, for each arithmetic that there is; torch's runs on the CPU too."""
    pixels, labels = data.train.pixels, data.train.labels
    name = str(request.param)
    if name == "kernels":
        return HostExamples(pixels, labels)
    return DeviceExamples.of(pixels, labels, torch.device(name.rsplit(maxsplit=1)[-1]))


def parameters(std: float = 0.1, seed: int = 0) -> Tensor:
    return init_params(785, std, torch.Generator().manual_seed(seed)).detach()


def on_the_device_of(examples: Examples, params: Tensor) -> Tensor:
    return params.to(examples.inputs.device if isinstance(examples, DeviceExamples) else "cpu")


def autograd_step(params: Tensor, x: Tensor, y: Tensor, lr: float) -> tuple[Tensor, float]:
    """The book's own way: a graph, backward, and a step down."""
    weights = params[:-1].clone().view(-1, 1).requires_grad_()
    bias = params[-1:].clone().requires_grad_()
    loss = mnist_loss(sigmoid(linear1(x, weights, bias)), y)
    loss.backward()
    assert weights.grad is not None
    assert bias.grad is not None
    moved = torch.cat([weights - lr * weights.grad, (bias - lr * bias.grad).view(1, 1)])
    return moved.detach().flatten(), loss.item()


@pytest.mark.parametrize("std", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("lr", [0.1, 1.0, 10.0])
def test_a_step_is_autograds(data: Data, train: Examples, std: float, lr: float) -> None:
    batch = 6131 // 256  # has threes and sevens
    chosen = slice(batch * 256, (batch + 1) * 256)
    params = parameters(std)
    expected, loss = autograd_step(
        params.double(), data.train_x[chosen].double(), data.train_y[chosen], lr
    )
    moved = on_the_device_of(train, params)
    total = train.sgd(moved, np.array([batch]), 256, lr)
    torch.testing.assert_close(moved.cpu().double(), expected, atol=1e-5 * lr, rtol=1e-5)
    assert mean_loss(total, 256) == pytest.approx(loss, abs=1e-6)


def test_a_run_is_the_books_loop(data: Data, train: Examples) -> None:
    """Two epochs, in float64 by autograd over the same mini-batches."""
    batches = MiniBatches(train, 42, 256)
    images = permutation(12396, 42)
    fast, slow = on_the_device_of(train, parameters()), parameters().double()
    for epoch in (1, 2):
        losses = []
        order = batches.order(epoch)
        total = batches.sgd(fast, order, 1.0)
        for index in order:
            chosen = images[index * 256 : (index + 1) * 256]
            assert len(chosen) == batches.count(index)
            x, y = data.train_x[chosen].double(), data.train_y[chosen]
            slow, loss = autograd_step(slow, x, y, 1.0)
            losses += [loss] * len(chosen)
        assert mean_loss(total, 12396) == pytest.approx(np.mean(losses), abs=1e-6)
    torch.testing.assert_close(fast.cpu().double(), slow, atol=1e-5, rtol=1e-5)


def test_evaluate_is_the_notes_loss_and_accuracy(data: Data, train: Examples) -> None:
    params = parameters(1.0)
    found = evaluate(on_the_device_of(train, params), train)
    preds = linear1(data.train_x.double(), params[:-1, None].double(), params[-1:].double())
    assert found.count == 12396
    assert found.accuracy == pytest.approx(accuracy(preds, data.train_y).item(), abs=1e-3)
    assert found.loss == pytest.approx(mnist_loss(sigmoid(preds), data.train_y).item(), abs=1e-6)


def test_the_device_says_how_the_images_are_kept(data: Data) -> None:
    assert isinstance(examples_on(CPU, data.valid.pixels, data.valid.labels), HostExamples)


@given(st.integers(1, 2000), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_a_permutation_has_everything_once(count: int, seed: int, epoch: int) -> None:
    order = permutation(count, seed, 256, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, permutation(count, seed, 256, epoch))


def test_permutations_never_change() -> None:
    """A run that is resumed after an upgrade must see the images in the same order."""
    assert permutation(12, 42).tolist() == [4, 8, 10, 1, 9, 3, 6, 0, 7, 2, 11, 5]
    assert permutation(12, 42, 256, 1).tolist() == [2, 5, 1, 7, 11, 9, 8, 10, 0, 4, 6, 3]
    assert permutation(12, 2**64 - 1, 1, 10**6).tolist() == [3, 11, 5, 7, 9, 1, 6, 4, 0, 2, 8, 10]


def test_each_epoch_has_an_order_of_its_own(sets: Sets) -> None:
    batches = sets.mini_batches(42, 256)
    orders = [tuple(batches.order(epoch)) for epoch in range(1, 50)]
    assert len(set(orders)) == len(orders)
    assert len(batches) == 49


@pytest.mark.parametrize("batch_size", [1, 255, 256, 6000, 12396])
def test_mini_batches_cover_every_image_once(train: Examples, batch_size: int) -> None:
    """Of a model that says 0.5 to each."""
    if batch_size == 1 and isinstance(train, DeviceExamples):
        pytest.skip("takes a second or two")
    batches = MiniBatches(train, 7, batch_size)
    order = batches.order(1)
    assert sorted(order) == list(range(len(batches)))
    assert sum(map(batches.count, order)) == 12396
    total = batches.sgd(on_the_device_of(train, parameters(0.0)), order, 1e-30)
    assert total == round(12396 * 0.5 / LOSS_UNIT)


def test_an_epoch_is_the_same_in_pieces(train: Examples) -> None:
    batches = MiniBatches(train, 1, 100)
    order = batches.order(1)
    whole, parts = (on_the_device_of(train, parameters()).clone() for _ in range(2))
    total = batches.sgd(whole, order, 1.0)
    assert batches.sgd(parts, order[:30], 1.0) + batches.sgd(parts, order[30:], 1.0) == total
    assert torch.equal(parts, whole)
