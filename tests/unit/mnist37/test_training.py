"""Tests of the fast step and of a run's order, compared with autograd and plain arithmetic."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import click
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mnist37_server.command_line import main as serve
from torch import Tensor

from mnist37.cuda import Cuda
from mnist37.cuda_kernels import COUNT_UNIT
from mnist37.data import Data, load
from mnist37.examples import Device, Examples, Parameters, TrainingSlice
from mnist37.host import Host, HostExamples
from mnist37.losses import LOSS_UNIT, mean_loss
from mnist37.model import accuracy, init_params, linear1, mnist_loss, sigmoid
from mnist37.optimizer import Sgd
from mnist37.shuffling import permutation, permutations
from mnist37.training import Datasets, MiniBatches, evaluate

DEVICES: dict[str, Device] = {
    "numba": Host(),
    "triton": Cuda(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
}


class Train(NamedTuple):
    """Training images on one of the two devices, and the same images as the notes have them."""

    device: Device
    examples: Examples
    x: Tensor  # (N, 784) float64
    y: Tensor  # (N, 1)


@pytest.fixture(scope="module")
def data() -> Data:
    return load()


@pytest.fixture(scope="module")
def sets(data: Data) -> Datasets:
    return Datasets(data, Host())


@pytest.fixture(params=["numba", "triton"])
def train(request: pytest.FixtureRequest, data: Data) -> Train:
    """Return the training images: all for numba, 500 for Triton, whose interpreter is slow."""
    selection = slice(None) if request.param == "numba" else slice(5900, 6400)
    pixels, labels = data.train.pixels[selection], data.train.labels[selection]
    device = DEVICES[request.param]
    examples = device.load_images(pixels, labels)
    return Train(device, examples, data.train_x[selection].double(), data.train_y[selection])


def parameters(std: float = 0.1, seed: int = 0) -> Tensor:
    return init_params(785, std, torch.Generator().manual_seed(seed)).detach()


def put(params: Tensor, train: Train) -> Parameters:
    """Copy parameters to the device of the images."""
    return train.device.put(params.numpy())


def fetch(params: Parameters, train: Train) -> Tensor:
    """Copy parameters from the device of the images."""
    return torch.from_numpy(train.device.fetch(params))


def autograd_step(params: Tensor, x: Tensor, y: Tensor, lr: float) -> tuple[Tensor, float]:
    """Make a step as the book does: a graph, backward, and an update; return the loss, too."""
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
def test_a_step_is_autograds(train: Train, std: float, lr: float) -> None:
    batch = len(train.x) // 2 // 200  # has threes and sevens
    chosen = slice(batch * 200, (batch + 1) * 200)
    assert 0 < train.y[chosen].sum() < 200
    params = parameters(std)
    expected, loss = autograd_step(params.double(), train.x[chosen], train.y[chosen], lr)
    moved = put(params, train)
    total = train.examples.sgd(moved, np.array([batch]), 200, Sgd(lr))
    torch.testing.assert_close(fetch(moved, train).double(), expected, atol=1e-5 * lr, rtol=1e-5)
    assert mean_loss(total, 200) == pytest.approx(loss, abs=1e-6)


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in exp"
)  # its inf is correct: 1 / inf is 0
def test_the_largest_parameters_that_are_allowed_do_not_overflow(train: Train) -> None:
    # Neither an image's score nor a partial sum may overflow, although pixels go up to 255.
    random = torch.Generator().manual_seed(1)
    params = torch.randn(785, generator=random)
    params *= 2.9e38 / params.double().abs().sum()
    found = evaluate(put(params, train), train.examples)
    scores = linear1(train.x, params[:-1, None].double(), params[-1:].double())
    expected = torch.where(train.y == 1, (scores < 0).double(), (scores > 0).double()).mean()
    assert found.loss == pytest.approx(expected.item(), abs=1e-3)
    moved = put(params, train)
    total = train.examples.sgd(moved, np.zeros(1, np.int64), 100, Sgd())
    assert 0 <= mean_loss(total, 100) <= 1
    assert torch.isfinite(fetch(moved, train)).all()


def test_a_run_is_the_books_loop(train: Train) -> None:
    # Two epochs are compared with autograd in float64 over the same mini-batches, of which the
    # last one is shorter.
    count = len(train.x)
    batches = MiniBatches(train.examples, 42, 256)
    images = permutation(count, 42)
    fast, slow = put(parameters(), train), parameters().double()
    for epoch in (1, 2):
        losses = []
        order = batches.order(epoch)
        total = batches.sgd(fast, order, Sgd())
        for index in order:
            chosen = images[index * 256 : (index + 1) * 256]
            assert len(chosen) == batches.counts(np.array(index))
            slow, loss = autograd_step(slow, train.x[chosen], train.y[chosen], 1.0)
            losses += [loss] * len(chosen)
        assert mean_loss(total, count) == pytest.approx(np.mean(losses), abs=1e-6)
    torch.testing.assert_close(fetch(fast, train).double(), slow, atol=1e-5, rtol=1e-5)


def test_evaluate_is_the_notes_loss_and_accuracy(train: Train) -> None:
    params = parameters(1.0)
    found = evaluate(put(params, train), train.examples)
    preds = linear1(train.x, params[:-1, None].double(), params[-1:].double())
    assert found.count == len(train.x)
    assert found.accuracy == pytest.approx(accuracy(preds, train.y).item(), abs=1e-3)
    assert found.loss == pytest.approx(mnist_loss(sigmoid(preds), train.y).item(), abs=1e-6)


def test_a_score_of_exactly_zero_is_a_seven(train: Train) -> None:
    # As in the notes' `preds > 0.0`.
    found = evaluate(put(torch.zeros(785), train), train.examples)
    threes = int(train.y.sum())
    sevens = len(train.y) - threes
    assert (found.threes_right, found.threes_called_sevens) == (0, threes)
    assert (found.sevens_right, found.sevens_called_threes) == (sevens, 0)
    assert found.accuracy == sevens / len(train.y)


@given(st.integers(1, 2000), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_a_permutation_has_everything_once(count: int, seed: int, epoch: int) -> None:
    order = permutation(count, seed, 256, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, permutation(count, seed, 256, epoch))


def test_permutations_never_change() -> None:
    # A run that is resumed after an upgrade must see the images in the same order.
    assert permutation(12, 42).tolist() == [4, 8, 10, 1, 9, 3, 6, 0, 7, 2, 11, 5]
    assert permutation(12, 42, 256, 1).tolist() == [2, 5, 1, 7, 11, 9, 8, 10, 0, 4, 6, 3]
    assert permutation(12, 2**64 - 1, 1, 10**6).tolist() == [3, 11, 5, 7, 9, 1, 6, 4, 0, 2, 8, 10]


def test_each_epoch_has_an_order_of_its_own(sets: Datasets) -> None:
    batches = sets.mini_batches(42, 256)
    orders = [tuple(batches.order(epoch)) for epoch in range(1, 50)]
    assert len(set(orders)) == len(orders)
    assert len(batches) == 49


@pytest.mark.parametrize("batch_size", [1, 255, 256, 6000, 12396])
def test_mini_batches_cover_every_image_once(sets: Datasets, batch_size: int) -> None:
    # With parameters of 0, every probability is 0.5.
    batches = MiniBatches(sets.train, 7, batch_size)
    order = batches.order(1)
    assert sorted(order) == list(range(len(batches)))
    assert batches.counts(order).sum() == 12396
    total = batches.sgd(parameters(0.0).numpy(), order, Sgd(1e-30))
    assert total == round(12396 * 0.5 / LOSS_UNIT)


def test_steps_with_a_rate_each_are_the_same_one_by_one(train: Train) -> None:
    batches = MiniBatches(train.examples, 1, 100)
    order, rates = batches.order(1)[:4], np.array([1, 0.5, 2, 0.1], np.float32)
    together, one_by_one = (put(parameters(), train) for _ in range(2))
    found = batches.steps(together, order, [*map(Sgd, rates.tolist())], np.inf)
    assert len(found.losses) == 4
    for i, rate in enumerate(rates.tolist()):
        assert found.losses[i] == batches.sgd(one_by_one, order[i : i + 1], Sgd(rate))
        assert np.array_equal(found.parameters[i], train.device.fetch(one_by_one))
    assert torch.equal(fetch(together, train), fetch(one_by_one, train))


def test_steps_end_before_the_first_that_overflows(train: Train) -> None:
    batches = MiniBatches(train.examples, 1, 100)
    order, rates = batches.order(1)[:4], np.array([1, 1e30, 1, 1], np.float32)
    found = batches.steps(put(parameters(), train), order, list(map(Sgd, rates.tolist())), 1e20)
    expected = put(parameters(), train)
    assert found.losses.tolist() == [batches.sgd(expected, order[:1], Sgd())]
    assert np.array_equal(found.parameters, train.device.fetch(expected)[None])


def test_an_epoch_is_the_same_in_pieces(train: Train) -> None:
    batches = MiniBatches(train.examples, 1, 100)
    order = batches.order(1)
    whole, parts = (put(parameters(), train) for _ in range(2))
    total = batches.sgd(whole, order, Sgd())
    assert batches.sgd(parts, order[:3], Sgd()) + batches.sgd(parts, order[3:], Sgd()) == total
    assert torch.equal(fetch(parts, train), fetch(whole, train))


@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 2**64 - 1) | st.sampled_from([0, 42, 2**32 - 1, 2**32, 2**64 - 1]),
    first=st.integers(0, 2**32 - 1),
    second=st.integers(0, 2**32 - 4),
)
def test_permutations_are_numpys(count: int, seed: int, first: int, second: int) -> None:
    some = range(second, second + 3)
    found = permutations(count, seed, first, some)
    assert found.tolist() == [permutation(count, seed, first, i).tolist() for i in some]


def test_a_slice_of_many_epochs_equals_epochs_one_by_one(train: Train, data: Data) -> None:
    selection = slice(1000, 1020)  # has threes and sevens
    pixels, labels = data.valid.pixels[selection], data.valid.labels[selection]
    valid = train.device.load_images(pixels, labels)
    batches = MiniBatches(train.examples, 1, 300)
    steps = len(batches)
    together, one_by_one = (put(parameters(), train) for _ in range(2))
    # One step of epoch 2 is done before the slice. The slice has the rest of epoch 2, two more
    # epochs, and one step of epoch 5.
    rates = np.array([0.5, 0.25, 2, 1, 1], np.float32)  # of epochs 2 to 6
    loss = batches.sgd(together, batches.order(2)[:1], Sgd(0.5))
    part = TrainingSlice(
        orders=batches.orders(range(2, 7)),
        first_step=1,
        loss=loss,
        max_steps=3 * steps,
        batch_size=300,
        rates=rates,
        stop=np.zeros(1, np.uint8),
    )
    found = batches.examples.train(together, part, valid)
    for i, number in enumerate(range(2, 5)):
        loss = batches.sgd(one_by_one, batches.order(number), Sgd(float(rates[i])))
        sums = valid.sum_losses(one_by_one)
        assert found.totals[i].tolist() == [
            loss,
            sums.losses,
            sums.threes_right + sums.sevens_right,
        ]
        assert found.parameters[i].tolist() == train.device.fetch(one_by_one).tolist()
    assert found.steps == 3 * steps
    assert found.loss == batches.sgd(one_by_one, batches.order(5)[:1], Sgd(1))
    assert torch.equal(fetch(together, train), fetch(one_by_one, train))
    assert (len(found.totals), len(found.parameters)) == (3, 3)


def test_a_run_can_be_stopped_within_a_slice(data: Data) -> None:
    examples = HostExamples(data.train.pixels, data.train.labels)
    batches = MiniBatches(examples, 1, 256)
    stop = np.zeros(1, np.uint8)
    rates = np.ones(10_000, np.float32)
    part = TrainingSlice(batches.orders(range(1, 10_001)), 0, 0, 10**9, 256, rates, stop)
    moved, done = parameters().numpy(), []
    thread = threading.Thread(
        target=lambda: done.append(batches.examples.train(moved, part, examples))
    )
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    stop[0] = 1
    began = time.monotonic()
    thread.join(timeout=10)
    assert time.monotonic() - began < 1, "10,000 epochs take 10 seconds"
    (found,) = done
    again = parameters().numpy()
    for number in range(1, len(found.totals) + 1):
        batches.sgd(again, batches.order(number), Sgd())
    left = found.steps - len(found.totals) * len(batches)
    assert batches.sgd(again, batches.order(len(found.totals) + 1)[:left], Sgd()) == found.loss
    assert np.array_equal(moved, again)


def test_the_counts_on_a_cuda_device_hold_the_largest_message() -> None:
    (option,) = (each for each in serve.params if each.name == "max_message_mib")
    assert isinstance(option.type, click.IntRange)
    assert option.type.max is not None
    images_max = option.type.max * 2**20 // (784 + 1)  # an image with its label
    unit = COUNT_UNIT.value
    assert images_max < unit
    # All of them are threes, and called so: the highest number that the three counts can be.
    assert images_max * unit**2 + images_max < 2**63
