"""Return memory to the system after a burst of calls."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

INTERVAL_SECONDS = 30.0
GROWTH_BYTES = 16 * 2**20  # above the lowest level so far, from which on a trim pays
STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def start_trimming() -> None:
    """Start a thread that has the C library return free memory while the process has grown.

    glibc keeps what was freed within its heaps, one for each of several threads: after a burst of
    calls that is a hundred MiB that nothing uses. Other C libraries have no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and STATM.exists():
        threading.Thread(target=_watch, args=(trim,), name="memory-trim", daemon=True).start()


def _watch(trim: ctypes._NamedFuncPointer) -> None:
    lowest_bytes = _anonymous_bytes()
    while True:
        time.sleep(INTERVAL_SECONDS)
        with suppress(OSError):  # there may be no more open files for a while
            if _anonymous_bytes() > lowest_bytes + GROWTH_BYTES:
                trim(0)
                lowest_bytes = min(lowest_bytes, _anonymous_bytes())


def _anonymous_bytes() -> int:
    """Return the resident memory of this process without that of files."""
    _, resident, shared, *_ = map(int, STATM.read_text().split())
    return (resident - shared) * PAGE_BYTES
