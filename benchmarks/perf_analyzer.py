"""NVIDIA's perf_analyzer against a server of this project: `make perf`.

The program learns from the server what to send, and reports the latencies that it sees beside the
server's statistics. Where the system's C library is too old for it, it can use newer libraries in a
folder of their own, which MNIST37_PERF_LIBRARIES names.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mnist37_client import Client
from rich.console import Console
from rich.table import Table

from benchmarks import processes

VARIABLE = "MNIST37_PERF_LIBRARIES"
LOADER = "ld-linux-x86-64.so.2"
# Where a distribution has the other libraries that the program needs.
SYSTEM_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")
WINDOW_MILLISECONDS = 1_000
STABLE_PERCENT = 30  # three windows in a row differ by at most this
UNSTABLE = "Failed to obtain stable measurement"
TIMEOUT_SECONDS = 120


class Case(NamedTuple):
    """A measurement: the program's options."""

    name: str
    batch_size: int
    concurrency: int
    streaming: bool = False


CASES = (
    Case("1 call of 1 image", 1, 1),
    Case("4 calls of 1 image", 1, 4),
    Case("1 stream of 1 image", 1, 1, streaming=True),
    Case("4 streams of 1 image", 1, 4, streaming=True),
    Case("1 call of 64 images", 64, 1),
    Case("1 stream of 64 images", 64, 1, streaming=True),
)

# What is read from the report.
NUMBERS = {
    "requests": r"Request count: (\d+)",
    "rate": r"Throughput: ([\d.]+) infer/sec",
    "p50": r"p50 latency: (\d+) usec",
    "p99": r"p99 latency: (\d+) usec",
    "images": r"Inference count: (\d+)",
    "executions": r"Execution count: (\d+)",
    "successes": r"Successful request count: (\d+)",
    "server": r"Avg request latency: (\d+) usec",
    "compute": r"compute infer (\d+) usec",
}


class CannotRun(Exception):
    """The program does not run here; the text says what is missing."""


def main(arguments: Sequence[str]) -> None:
    """Measure at rest and beside a training run, and print a table.

    Args:
        arguments: the path of the program.
    """
    (program,) = arguments
    try:
        command = find_command(Path(program), os.environ)
    except CannotRun as error:
        sys.exit(f"make perf: {error}")
    table = Table(*("server", "load", "images/s", "p50", "p99", "in the server", "computing"))
    for column in table.columns[2:]:
        column.justify = "right"
    for training in (False, True):
        with loaded_server(training=training) as address:
            for case in CASES:
                report = measure(command, address, case)
                table.add_row(
                    "beside a run" if training else "at rest",
                    case.name,
                    *cells(report),
                )
    Console(width=110).print(table)


def cells(report: Mapping[str, float] | None) -> list[str]:
    """Return the columns of a report."""
    if report is None:
        return ["not stable"]
    times = (f"{report[name]:,.0f} µs" for name in ("p50", "p99", "server", "compute"))
    return [f"{report['rate']:,.0f}", *times]


def find_command(program: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the command that starts the program here.

    Args:
        program: its path.
        environment: may name the folder with the newer libraries.

    Raises:
        CannotRun: it does not start here.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise CannotRun("perf_analyzer is published for Linux on x86-64 alone")
    command = [str(program)]
    if folder := environment.get(VARIABLE):
        loader = Path(folder, LOADER)
        if not loader.exists():
            raise CannotRun(f"{VARIABLE}: there is no {LOADER} in {folder}")
        paths = ":".join((str(Path(folder).absolute()), *SYSTEM_LIBRARIES))
        command = [str(loader), "--library-path", paths, *command]
    process = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    if process.returncode == 0:
        return command
    needed = re.findall(r"`GLIBC_([\d.]+)' not found", process.stderr)
    if not needed:
        last = process.stderr.strip().splitlines()[-1:] or [f"exit {process.returncode}"]
        raise CannotRun(f"perf_analyzer does not start here: {last[0]}")
    raise CannotRun(
        f"perf_analyzer needs glibc {needed[-1]}, and this system has {platform.libc_ver()[1]};"
        " unpack Debian 13's libc6, libgcc-s1 and libstdc++6 (dpkg-deb -x), and let"
        f" {VARIABLE} name their folder usr/lib/x86_64-linux-gnu"
    )


@contextmanager
def loaded_server(*, training: bool) -> Iterator[str]:
    """Start a server with a trained model; during the context it is at rest, or trains."""
    with processes.mnist37(cores=processes.BOTH) as server, Client(server.address) as client:
        client.train(epochs=20).wait()
        if not training:
            yield server.address
            return
        with client.train(epochs=1_000_000) as run:
            next(run)
            yield server.address
            next(run)


def measure(command: list[str], address: str, case: Case) -> dict[str, float] | None:
    """Let the program measure, and return the numbers of its report.

    Returns:
        The numbers; None if its windows differed too much, as beside other load on the machine.

    Raises:
        RuntimeError: it failed, or the server's counts do not fit its own.
    """
    options = ["-m", "mnist37", "-i", "grpc", "-u", address, "-b", str(case.batch_size)]
    options += ["--concurrency-range", str(case.concurrency), "-p", str(WINDOW_MILLISECONDS)]
    options += ["-s", str(STABLE_PERCENT), *(["--streaming"] if case.streaming else [])]
    process = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if UNSTABLE in process.stdout + process.stderr:
        return None
    if process.returncode:
        raise RuntimeError(f"{case.name}: {process.stdout}{process.stderr}")
    return parse(process.stdout, case.batch_size)


def parse(text: str, batch_size: int) -> dict[str, float]:
    """Return the numbers of a report.

    Raises:
        RuntimeError: one of them is missing, or the server's counts do not fit the program's.
    """
    report = {}
    for name, pattern in NUMBERS.items():
        found = re.search(pattern, text)
        if found is None:
            raise RuntimeError(f"the report has no {name}: {text}")
        report[name] = float(found[1])
    executions, successes = (report[name] * batch_size for name in ("executions", "successes"))
    if not report["images"] == executions == successes:
        raise RuntimeError(f"the server's counts do not fit one another: {text}")
    # The program asks for the statistics a moment after it has taken the time.
    if abs(report["successes"] - report["requests"]) > 10 + 0.05 * report["requests"]:
        raise RuntimeError(f"the server's counts are not those of the calls: {text}")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
