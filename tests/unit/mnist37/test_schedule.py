"""Tests of the schedules of the learning rate, with torch's as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist37.schedule import Schedule, Shape, _cos_pi


def torchs_rates(scheduler: str, epochs: int, full: float, final: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=full)
    steps = epochs - 1
    schedule: torch.optim.lr_scheduler.LRScheduler = (
        torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, final / full, steps)
        if scheduler == "linear"
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, final)
    )
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("epochs", [2, 3, 20, 101])
@pytest.mark.parametrize("shape", [Shape.LINEAR, Shape.COSINE])
def test_the_rates_are_torchs(shape: Shape, epochs: int) -> None:
    schedule = Schedule(shape, final_rate=0.05)
    rates = schedule.rates(2.0, range(1, epochs + 1), epochs)
    assert rates == pytest.approx(torchs_rates(shape.value, epochs, 2.0, 0.05), rel=1e-6)


@given(
    st.sampled_from(Shape),
    st.floats(1e-6, 1e6),
    st.floats(1e-6, 1e6),
    st.integers(1, 50),
    st.data(),
)
def test_rates_begin_and_end_where_they_should(
    shape: Shape, full: float, final: float, epochs: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, epochs))
    final_rate = None if shape is Shape.CONSTANT else final
    schedule = Schedule(shape, final_rate, warmup)
    rates = schedule.rates(full, range(1, epochs + 1), epochs)
    first = max(1, warmup)
    rising = [full * epoch / warmup for epoch in range(1, first)]
    assert rates[: first - 1] == pytest.approx(rising, rel=1e-6)
    assert rates[first - 1] == np.float32(full)
    if epochs > first:
        assert rates[-1] == pytest.approx(full if final_rate is None else final, rel=1e-6)
    between = sorted((full, full if final_rate is None else final))
    assert (rates[first - 1 :] >= np.float32(between[0] * (1 - 1e-6))).all()
    assert (rates[first - 1 :] <= np.float32(between[1] * (1 + 1e-6))).all()
    parts = [schedule.rates(full, range(e, e + 1), epochs)[0] for e in range(1, epochs + 1)]
    assert parts == rates.tolist(), "a rate must depend on nothing but its epoch"


@given(st.floats(0, 1))
def test_the_cosine_is_exact(turns: float) -> None:
    assert _cos_pi(turns) == pytest.approx(math.cos(math.pi * turns), abs=1e-15)


def test_rates_never_change() -> None:
    # A run that is resumed after an upgrade must have the rates of before.
    schedule = Schedule(Shape.COSINE, 0.01, 2)
    rates = [float(rate).hex() for rate in schedule.rates(3.0, range(1, 6), 5)]
    assert rates == [
        *("0x1.8000000000000p+0", "0x1.8000000000000p+1"),
        *("0x1.2051ec0000000p+1", "0x1.83d70a0000000p-1", "0x1.47ae140000000p-7"),
    ]
