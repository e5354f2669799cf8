"""Return memory to the system after a burst of calls."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

CHECK_INTERVAL_SECONDS = 15.0
GROWTH_BYTES = 8 * 2**20  # since the last trim, after which the next one pays
STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def start_trimming() -> None:
    """Start a thread that has the C library return free memory when the process has grown.

    glibc keeps what was freed within its heaps, one for each of several threads: after a burst of
    calls that is a hundred MiB that nothing uses. Other C libraries have no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and STATM.exists():
        threading.Thread(target=_watch, args=(trim,), name="memory-trim", daemon=True).start()


def _watch(trim: ctypes._NamedFuncPointer) -> None:
    trimmed_bytes = 0
    while True:
        time.sleep(CHECK_INTERVAL_SECONDS)
        if _anonymous_bytes() > trimmed_bytes + GROWTH_BYTES:
            trim(0)
            trimmed_bytes = _anonymous_bytes()


def _anonymous_bytes() -> int:
    """Return the resident memory of this process without that of files."""
    _, resident, shared, *_ = map(int, STATM.read_text().split())
    return (resident - shared) * PAGE_BYTES
