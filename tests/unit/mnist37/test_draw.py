"""Tests of Initialize's random numbers, which equal torch's to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist37.draw import draw_parameters
from mnist37.model import init_params

avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="no x86-64 processor with AVX2: torch draws other random numbers here",
)


@avx2
@given(st.integers(0, 2**64 - 1) | st.sampled_from([0, 42, 2**32]), st.floats(0, 100))
def test_the_numbers_are_those_that_the_notes_draw(seed: int, std: float) -> None:
    # torch takes seeds from 2**63 on as negative numbers.
    generator = torch.Generator().manual_seed(seed - 2**64 if seed >= 2**63 else seed)
    weights = init_params((784, 1), std, generator).detach()
    bias = init_params(1, std, generator).detach()
    expected = torch.cat([weights.flatten(), bias]).numpy()
    # Compared by their bits, because with std 0 some numbers are -0.
    assert draw_parameters(seed, std).tobytes() == expected.tobytes()


def test_the_numbers_are_normally_distributed() -> None:
    drawn = np.concatenate([draw_parameters(seed, 2.0) for seed in range(100)])
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 2) < 0.05
