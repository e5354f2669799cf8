"""Tests of the return of free memory to the system."""

from __future__ import annotations

import ctypes
import sys

import pytest
from mnist37_server.rpc import memory_trim
from support.scraping import wait_until
from support.vitals import MIB

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="needs glibc",
)


def test_memory_that_was_freed_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free many small blocks below one that stays, which glibc by itself keeps."""
    monkeypatch.setattr(memory_trim, "INTERVAL_SECONDS", 0.2)
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    memory_trim.start_trimming()
    before = memory_trim._anonymous_bytes()
    blocks = [library.malloc(4000) for _ in range(20_000)]
    for block in blocks:
        ctypes.memset(block, 1, 4000)
    assert memory_trim._anonymous_bytes() > before + 70 * MIB
    for block in blocks[:-1]:
        library.free(block)
    assert wait_until(lambda: memory_trim._anonymous_bytes() < before + 40 * MIB, 10)
    library.free(blocks[-1])
