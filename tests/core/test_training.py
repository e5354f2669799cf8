"""The fast step and the order of a run, against autograd and against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mnist37.data import Data, load
from mnist37.model import accuracy, init_params, linear1, mnist_loss, sigmoid
from mnist37.training import (
    LOSS_UNIT,
    Examples,
    MiniBatches,
    Sets,
    evaluate,
    mean_loss,
    permutation,
    sgd_step,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Data:
    return load()


@pytest.fixture(scope="module")
def sets(data: Data) -> Sets:
    return Sets(data, CPU)


def parameters(std: float = 0.1, seed: int = 0) -> Tensor:
    return init_params(785, std, torch.Generator().manual_seed(seed)).detach()


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
def test_a_step_is_autograds(data: Data, std: float, lr: float) -> None:
    x, y = data.train_x[6000:6256], data.train_y[6000:6256]
    params = parameters(std)
    expected, loss = autograd_step(params.double(), x.double(), y, lr)
    examples, out = Examples.of(x, y, CPU), torch.empty(256)
    sgd_step(params, examples, lr, out)
    torch.testing.assert_close(params.double(), expected, atol=1e-5 * lr, rtol=1e-5)
    assert mean_loss(examples.loss(out), 256) == pytest.approx(loss, abs=1e-6)


def test_a_run_is_the_books_loop(data: Data, sets: Sets) -> None:
    """Two epochs, in float64 by autograd over the same mini-batches."""
    batches = sets.mini_batches(42, 256)
    images = permutation(12396, 42)
    fast, slow = parameters(), parameters().double()
    for epoch in (1, 2):
        losses = []
        order = batches.order(epoch)
        for index in order:
            batches.step(fast, index, 1.0)
            chosen = images[index * 256 : (index + 1) * 256]
            x, y = data.train_x[chosen].double(), data.train_y[chosen]
            slow, loss = autograd_step(slow, x, y, 1.0)
            losses += [loss] * len(chosen)
        assert mean_loss(*batches.loss(order)) == pytest.approx(np.mean(losses), abs=1e-6)
    torch.testing.assert_close(fast.double(), slow, atol=1e-5, rtol=1e-5)


def test_evaluate_is_the_notes_loss_and_accuracy(data: Data, sets: Sets) -> None:
    params = parameters(1.0)
    found = evaluate(params, [sets.valid])
    preds = linear1(data.valid_x.double(), params[:-1, None].double(), params[-1:].double())
    assert found.count == 2038
    assert found.accuracy == pytest.approx(accuracy(preds, data.valid_y).item(), abs=1e-7)
    assert found.loss == pytest.approx(mnist_loss(sigmoid(preds), data.valid_y).item(), abs=1e-6)


def test_evaluate_in_parts_is_the_same_to_the_bit(sets: Sets) -> None:
    params = parameters(1.0)
    whole = evaluate(params, [sets.valid])
    probabilities = torch.mv(sets.valid.inputs, params).sigmoid_()
    pieces = [slice(0, 1), slice(1, 1000), slice(1000, None)]
    total = sum(sets.valid[piece].loss(probabilities[piece]) for piece in pieces)
    assert mean_loss(total, 2038) == whole.loss


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_the_sum_of_losses_is_as_good_as_float64s(values: list[float]) -> None:
    probabilities = torch.tensor(values)
    targets = torch.arange(len(values)) % 2
    examples = Examples.of(torch.zeros(len(values), 784), targets, CPU)
    exact = torch.where(targets == 1, 1 - probabilities.double(), probabilities.double()).sum()
    assert examples.loss(probabilities) * LOSS_UNIT == pytest.approx(
        exact.item(), abs=LOSS_UNIT * len(values)
    )


def test_uint8_pixels_are_scaled_as_the_notes_scale_them(data: Data) -> None:
    pixels = (data.valid_x[:10] * 255).round().to(torch.uint8)
    assert torch.equal(
        Examples.of(pixels, data.valid_y[:10], CPU).inputs,
        Examples.of(data.valid_x[:10], data.valid_y[:10], CPU).inputs,
    )


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
def test_mini_batches_cover_every_image_once(sets: Sets, batch_size: int) -> None:
    batches = MiniBatches(sets.train, 7, batch_size)
    order = batches.order(1)
    batches.probabilities.fill_(-1)
    params = parameters(0.0)
    for index in order:
        batches.step(params, index, 1e-30)
    assert torch.equal(batches.probabilities, torch.full((12396,), 0.5))
    assert batches.loss(order) == (round(12396 * 0.5 / LOSS_UNIT), 12396)


def test_an_epochs_loss_is_the_same_in_pieces(sets: Sets) -> None:
    batches = sets.mini_batches(1, 100)
    order, params = batches.order(1), parameters()
    for index in order:
        batches.step(params, index, 1.0)
    whole, count = batches.loss(order)
    first, first_count = batches.loss(order[:30])
    rest, rest_count = batches.loss(order[30:])
    assert (first + rest, first_count + rest_count) == (whole, count)
