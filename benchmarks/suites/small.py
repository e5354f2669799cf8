"""Small things that users feel."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mnist37_client import Client

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.load import h2load
from benchmarks.processes import SERVER
from benchmarks.suites.commits import on_disk
from benchmarks.suites.predict import answer, body

WARM_UP = (20_000, 1_500)  # predictions and epochs, after which memory is all taken
CALLS = (20_000, 1_000)
SOAK = (1_000_000, 10_000)
SETTLE_SECONDS = 1.0  # seconds after the last call


def time_command(*command: str) -> Measure:
    """Seconds that a command takes, on the server's core."""

    def measure(seconds: float) -> float:
        with processes.pinned_to(SERVER):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began

    return measure


@contextmanager
def command(*words: str) -> Iterator[Measure]:
    """The same; nothing is to be started before."""
    yield time_command(*words)


@contextmanager
def starting() -> Iterator[Measure]:
    """Seconds until a server is ready."""

    def measure(seconds: float) -> float:
        began = time.perf_counter()
        with processes.mnist37():
            return time.perf_counter() - began

    yield measure


@contextmanager
def growth(options: Options) -> Iterator[Measure]:
    """The server's memory after many calls and epochs, over that after a few."""
    with on_disk(options) as server, Client(server.address, timeout=None) as client:

        def resident(predictions: int, epochs: int) -> int:
            loop = h2load.ClosedLoop(server.address, "Predict", body(1), answer(1) - 3, 64)
            loop.times(predictions)
            for _ in range(0, epochs, 500):
                client.train(500).wait()
            status = Path(f"/proc/{server.pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0])

        def measure(seconds: float) -> float:
            before = resident(*WARM_UP)
            return resident(*(SOAK if options.soak else CALLS)) / before

        yield measure


@contextmanager
def idling() -> Iterator[Measure]:
    """The share of a core, in percent, that a server takes which has nothing left to do."""
    with processes.mnist37() as server, Client(server.address) as client:
        client.train(10).wait()
        client.get_model()

        def used() -> int:
            """Nanoseconds, of all its threads."""
            threads = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
            return sum(int(thread.read_text().split()[0]) for thread in threads)

        def measure(seconds: float) -> float:
            time.sleep(SETTLE_SECONDS)
            before, began = used(), time.perf_counter()
            time.sleep(seconds)
            return (used() - before) / (time.perf_counter() - began) / 1e9 * 100

        yield measure


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    predictions, epochs = SOAK if options.soak else CALLS
    return [
        Benchmark(
            key="small-ready",
            name="seconds until a server is ready",
            unit="s",
            aim=Aim("at most", 1.3),
            a=starting,
            figure=Figure.VALUE,
            pairs=10,
            rounds=1,
        ),
        Benchmark(
            key="small-help",
            name="mnist37 --help",
            unit="s",
            aim=Aim("at most", 0.3),
            a=partial(command, str(Path(sys.executable).with_name("mnist37")), "--help"),
            figure=Figure.VALUE,
            pairs=10,
            rounds=1,
        ),
        Benchmark(
            key="small-memory",
            name=f"memory after {predictions:,} predictions and {epochs:,} epochs / before",
            unit="",
            aim=Aim("at most", 1.02),
            a=partial(growth, options),
            figure=Figure.VALUE,
            pairs=1,
            rounds=1,
        ),
        Benchmark(
            key="small-idle",
            name="processor that an idle server takes, of a core",
            unit="%",
            aim=Aim("at most", 0.2),
            a=idling,
            figure=Figure.VALUE,
            seconds=3.0,
            pairs=1,
        ),
    ]
