"""Tests of the return of free memory to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from support.vitals import MIB

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="needs glibc",
)

# It prints by how much the process has grown: with 80 MB in use, and after all but the last block,
# which keeps the heap from shrinking by itself, were freed.
FREE_MANY_BLOCKS = """
import ctypes, time
from mnist37_server.rpc import memory_trim

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
memory_trim.INTERVAL_SECONDS = {interval}
memory_trim.start_trimming()
before = memory_trim._anonymous_bytes()
blocks = [library.malloc(4000) for _ in range(20_000)]
for block in blocks:
    ctypes.memset(block, 1, 4000)
print(memory_trim._anonymous_bytes() - before)
for block in blocks[:-1]:
    library.free(block)
deadline = time.monotonic() + {wait}
while memory_trim._anonymous_bytes() - before > 40 * 2**20 and time.monotonic() < deadline:
    time.sleep(0.05)
print(memory_trim._anonymous_bytes() - before)
"""


@pytest.mark.parametrize(("interval", "is_returned"), [(0.2, True), (60, False)])
def test_memory_that_was_freed_is_returned(interval: float, is_returned: bool) -> None:
    # A process of its own: in this one, new blocks may lie in memory that earlier tests freed.
    script = FREE_MANY_BLOCKS.format(interval=interval, wait=10 if is_returned else 1)
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    used, left = map(int, output.split())
    assert used > 70 * MIB
    assert (left < 40 * MIB) is is_returned
