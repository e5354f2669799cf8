"""Tests that equal seeds and calls give equal bits, on every processor and from the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.twin import Twin

# The digest of a new model after 20 epochs, which `mnist37 demo` prints.
DIGEST = "55605b6c6cd76cd7dd7427d797de2353bb2a67f5956e7c7aafc8bc196f63039c"

avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="no x86-64 processor with AVX2: torch draws other random numbers here",
)

TRAIN_AND_PREDICT = """
import hashlib
import numpy as np
from mnist37 import kernels
from mnist37.draw import draw_parameters

random = np.random.default_rng(37)
images = random.integers(0, 256, (300, 784), np.uint8)
labels = random.integers(0, 2, 300, np.uint8)
parameters = random.standard_normal(785).astype(np.float32) / 10
loss = kernels.sgd(images, labels, np.arange(6), 50, parameters, 0.1)
steps = np.empty(6, np.int64), np.empty((6, 785), np.float32)
rates = np.linspace(0.01, 0.1, 6, dtype=np.float32)
kernels.steps(images, labels, np.arange(6), 50, parameters.copy(), rates, np.inf, *steps)
found = [parameters, steps[1].ravel(), draw_parameters(7, 0.5)]
for kernel, some in ((kernels.predict, images), (kernels.predict_floats, images / np.float32(255))):
    found.append(np.empty(300, np.float32))
    kernel(some, parameters, found[-1])
packed = bytearray(4 * 300)
kernels.predict_bytes(images.tobytes(), 0, 300, parameters, packed)
found.append(np.frombuffer(packed, np.float32))
evaluation = kernels.evaluate(images, labels, parameters)
(hits,) = kernels.sgd.stats.cache_hits.values() or [0]
print(hashlib.sha256(np.concatenate(found).tobytes()).hexdigest(), loss, *evaluation, hits)
"""

# Settings of numba and the C library that simulate processors with fewer instructions.
PROCESSORS = {
    "this one": {},
    "one without vectors of 512 bits": {"NUMBA_CPU_NAME": "haswell"},
    "one without fused multiply-adds": {
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2",
    },
}


def train_and_predict(cache: Path, processor: dict[str, str]) -> tuple[list[str], bool]:
    """Train and predict in a new process.

    Returns:
        The digest and the sums that it prints, and whether its kernels came from numba's cache.
    """
    process = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_PREDICT],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), **processor},
        capture_output=True,
        text=True,
        check=True,
    )
    *results, hits = process.stdout.split()
    return results, hits != "0"


@pytest.fixture(scope="module")
def compiled_here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    cache = tmp_path_factory.mktemp("numba")
    found, cached = train_and_predict(cache, PROCESSORS["this one"])
    assert not cached
    return cache, found


def test_kernels_from_the_cache_give_the_results_of_compiled_ones(
    compiled_here: tuple[Path, list[str]],
) -> None:
    cache, expected = compiled_here
    found, cached = train_and_predict(cache, PROCESSORS["this one"])
    assert cached
    assert found == expected


@avx2
@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "this one"])
def test_another_processor_gives_the_same_results(
    name: str, compiled_here: tuple[Path, list[str]], tmp_path: Path
) -> None:
    _, expected = compiled_here
    found, cached = train_and_predict(tmp_path, PROCESSORS[name])
    assert not cached
    assert found == expected


@avx2
def test_a_new_model_trained_for_20_epochs_is_the_one_in_the_readme() -> None:
    twin = Twin()
    twin.train(20)
    assert twin.digest == DIGEST
    readme = Path(__file__).parents[3] / "README.md"
    assert DIGEST in readme.read_text()
