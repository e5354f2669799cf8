"""Tests of the closed-form gradient, compared with autograd."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnist37.model import gradient, gradient_step, init_params, linear1, mnist_loss, sigmoid


def example(count: int, seed: int, std: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 784, generator=generator)
    y = (torch.rand(count, 1, generator=generator) < 0.5).long()
    return x, y, init_params((784, 1), std, generator), init_params(1, std, generator)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_closed_form_gradient_is_autograds(count: int, seed: int, std: float) -> None:
    x, y, weights, bias = example(count, seed, std)
    mnist_loss(sigmoid(linear1(x, weights, bias)), y).backward()
    weights_grad, bias_grad = gradient(x, y, weights.detach(), bias.detach())
    torch.testing.assert_close(weights_grad, weights.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(bias_grad, bias.grad, atol=1e-6, rtol=1e-4)


def test_a_gradient_step_reduces_the_loss() -> None:
    x, y, weights, bias = example(100, 0, 0.1)
    before = weights.detach().clone()
    loss = mnist_loss(sigmoid(linear1(x, weights, bias)), y)
    loss.backward()
    assert weights.grad is not None
    gradient_step(x, y, weights, bias, lr=0.5)
    torch.testing.assert_close(weights.detach(), before - 0.5 * weights.grad)
    assert mnist_loss(sigmoid(linear1(x, weights, bias)), y) < loss


def test_init_params_draws_as_torch_does() -> None:
    torch.manual_seed(7)
    expected = torch.randn((784, 1)) * 0.5
    torch.manual_seed(7)
    drawn = init_params((784, 1), 0.5)
    assert torch.equal(drawn, expected)
    assert drawn.requires_grad
    assert torch.equal(init_params((784, 1), 0.5, torch.Generator().manual_seed(7)), expected)
