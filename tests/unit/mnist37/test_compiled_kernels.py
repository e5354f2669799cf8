"""The kernels for CUDA, compiled for each kind of device as they are launched; none is needed.

Triton's interpreter, on which the other tests run them, takes what its compiler refuses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import triton

from mnist37.cuda_kernels import WARPS

ARCHITECTURES = (75, 80, 86, 90, 100, 120)  # compute capability 7.5 (T4) to 12.0
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
REGISTERS = 65_536  # of a block, in all
STATIC_SHARED = 48 * 1024  # bytes that a block may have without asking for more

Compile = Callable[[int], dict[str, Path]]


def tool(name: str, *arguments: str | Path) -> str:
    command = [TOOLS / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Returns a function that compiles for a kind of device, with nothing from a cache."""

    def compile_for(arch: int) -> dict[str, Path]:
        folder = tmp_path / "binaries"
        folder.mkdir()
        environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
        environment.pop("TRITON_INTERPRET", None)
        script = Path(__file__).with_name("compile_kernels.py")
        command: list[str | Path] = [sys.executable, script, str(arch), folder]
        process = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False
        )
        assert process.returncode == 0, process.stderr
        # make device-compile says which release it is about.
        expected = os.environ.get("MNIST37_TRITON", triton.__version__)
        assert process.stdout.strip() == expected
        return {path.stem: path for path in folder.iterdir()}

    return compile_for


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_kernels_compile_and_keep_within_a_blocks_bounds(arch: int, compiled: Compile) -> None:
    binaries = compiled(arch)
    # One binary each: however many images and steps there are, nothing is compiled again.
    assert set(binaries) == {"sgd-1", "evaluate-1"}
    for name, binary in binaries.items():
        usage = tool("cuobjdump", "-res-usage", binary)
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
        assert found, usage
        registers, stack, shared, local = map(int, found.groups())
        assert re.search(rf"\bsm={arch}a?\b", tool("cuobjdump", "-elf", binary))
        assert (stack, local) == (0, 0), f"{name} spills"
        assert registers * WARPS * 32 <= REGISTERS
        assert shared <= STATIC_SHARED
        code = tool("nvdisasm", "-c", binary)
        loads = Counter(re.findall(r"\b(LDG\.\S+|LDL|STL)\b", code))
        wide = sum(count for load, count in loads.items() if ".128" in load)
        bytes_ = sum(count for load, count in loads.items() if re.search(r"\.[US]8\b", load))
        assert not {"LDL", "STL"} & set(loads), f"{name} spills"
        # A tile is two loads of 16 bytes by each thread, for either part of its images: the first
        # tile's and, in a loop, the next one's. What is read by the byte are the labels.
        tiles = 2 if name.startswith("sgd") else 1
        assert wide >= 4 * tiles, loads
        assert bytes_ <= 2 * tiles, loads
