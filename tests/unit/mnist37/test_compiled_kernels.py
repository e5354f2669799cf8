"""Tests of the CUDA kernels, compiled for each kind of device as they are launched.

They need no device. The other tests run the kernels on Triton's interpreter, which accepts code
that its compiler refuses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import triton

from mnist37.cuda_kernels import WARPS

ARCHITECTURES = (75, 80, 86, 90, 100, 120)  # compute capability 7.5 (T4) to 12.0
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
BLOCK_REGISTERS_MAX = 65_536
STATIC_SHARED_BYTES_MAX = 48 * 1024  # of a block, without a request for more


def tool(name: str, *arguments: str | Path) -> str:
    command = [TOOLS / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compile_kernels(folder: Path) -> Path:
    """Compile the kernels for all architectures, without a cache; return the binaries' folder."""
    binaries = folder / "binaries"
    binaries.mkdir()
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder / "cache")}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("compile_kernels.py")
    command: list[str | Path] = [sys.executable, script, binaries, *map(str, ARCHITECTURES)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    # `make device-compile` sets the release of Triton that it tests.
    assert process.stdout.strip() == os.environ.get("MNIST37_TRITON", triton.__version__)
    return binaries


def test_the_kernels_compile_and_keep_within_a_blocks_bounds(tmp_path: Path) -> None:
    binaries = compile_kernels(tmp_path)
    for arch in ARCHITECTURES:
        check(arch, {path.stem: path for path in (binaries / str(arch)).iterdir()})


def check(arch: int, binaries: dict[str, Path]) -> None:
    """Assert that a device loads one binary for each kernel, and that it is within the bounds."""
    # One binary each: other numbers of images and steps need no second compilation.
    assert set(binaries) == {"sgd-1", "evaluate-1"}
    for name, binary in binaries.items():
        usage = tool("cuobjdump", "-res-usage", binary)
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
        assert found, usage
        registers, stack, shared, local = map(int, found.groups())
        assert re.search(rf"\bsm={arch}a?\b", tool("cuobjdump", "-elf", binary))
        assert (stack, local) == (0, 0), f"{name} spills for {arch}"
        assert registers * WARPS * 32 <= BLOCK_REGISTERS_MAX
        assert shared <= STATIC_SHARED_BYTES_MAX
        code = tool("nvdisasm", "-c", binary)
        loads = Counter(re.findall(r"\b(LDG\.\S+|LDL|STL)\b", code))
        wide = sum(count for load, count in loads.items() if ".128" in load)
        bytes_ = sum(count for load, count in loads.items() if re.search(r"\.[US]8\b", load))
        assert not {"LDL", "STL"} & set(loads), f"{name} spills for {arch}"
        # For a tile each thread makes two loads of 16 bytes for each part of its images: in sgd
        # those of the first tile and, in a loop, those of the next. Labels are loaded by the byte.
        tiles = 2 if name.startswith("sgd") else 1
        assert wide >= 4 * tiles, loads
        assert bytes_ <= 2 * tiles, loads
