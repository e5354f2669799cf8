"""The memory, threads and files of a process, read from Linux' /proc."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MIB = 2**20


class Vitals(NamedTuple):
    """A process' memory, threads and files at one moment."""

    memory: int  # resident, in bytes
    threads: int
    files: int  # open files, connections included

    @classmethod
    def of(cls, process: int) -> Vitals:
        """Return the vitals of a process by its id."""
        folder = Path("/proc", str(process))
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, int(status["Threads"]), len(list((folder / "fd").iterdir())))

    @classmethod
    def of_family(cls, process: int) -> Vitals:
        """Return the sums of the vitals of a process and its descendants."""
        return cls(*map(sum, zip(*map(cls.of, family_of(process)), strict=True)))


def family_of(process: int) -> list[int]:
    """Return the ids of a process and its descendants, ancestors first."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    family = [process]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def wait_for_vitals(process: int, files: int, seconds: float = 10) -> Vitals:
    """Wait until a process has at most so many files open, or for so many seconds.

    Returns:
        Its vitals at the end of the wait.
    """
    deadline = time.monotonic() + seconds
    while (vitals := Vitals.of(process)).files > files and time.monotonic() < deadline:
        time.sleep(0.05)
    return vitals
