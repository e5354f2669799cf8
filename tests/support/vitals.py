"""What a server's process holds, as Linux tells it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

MIB = 2**20


class Vitals(NamedTuple):
    """At a moment."""

    memory: int  # bytes that are resident
    threads: int
    files: int  # that are open: connections too

    @classmethod
    def of(cls, process: int) -> Vitals:
        """Of a process by its number."""
        folder = Path("/proc", str(process))
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, int(status["Threads"]), len(list((folder / "fd").iterdir())))


def settled(process: int, files: int, within: float = 10) -> Vitals:
    """Once it has at most so many files open, or after so many seconds."""
    until = time.monotonic() + within
    while (now := Vitals.of(process)).files > files and time.monotonic() < until:
        time.sleep(0.05)
    return now
