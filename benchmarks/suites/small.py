"""Small costs that users notice: start, memory and idle time."""

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
from benchmarks.suites.commits import disk_server
from benchmarks.suites.predict import answer_bytes, request_body

# Predictions and epochs
WARM_UP = (20_000, 1_500)  # after these the server has allocated its memory
CALLS = (20_000, 1_000)
SOAK = (1_000_000, 10_000)

SETTLE_SECONDS = 1.0  # after the last call


@contextmanager
def command(*words: str) -> Iterator[Measure]:
    """Yield a measurement of the seconds of a command on the server's core."""

    def measure(seconds: float) -> float:
        with processes.pinned_to(SERVER):
            start = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

    yield measure


@contextmanager
def startup() -> Iterator[Measure]:
    """Yield a measurement of the seconds until a server is ready."""

    def measure(seconds: float) -> float:
        start = time.perf_counter()
        with processes.mnist37():
            return time.perf_counter() - start

    yield measure


@contextmanager
def memory_growth(options: Options) -> Iterator[Measure]:
    """Start a server and yield a measurement of its memory after many calls, over that after a few.

    The calls are Predicts and Trains.
    """
    with disk_server(options) as server, Client(server.address, timeout=None) as client:

        def resident_kb_after(predictions: int, epochs: int) -> int:
            loop = h2load.ClosedLoop(
                server.address, "Predict", request_body(1), answer_bytes(1) - 3, 64
            )
            loop.run(predictions)
            for _ in range(0, epochs, 500):
                client.train(500).wait()
            status = Path(f"/proc/{server.pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0])

        def measure(seconds: float) -> float:
            before = resident_kb_after(*WARM_UP)
            return resident_kb_after(*(SOAK if options.soak else CALLS)) / before

        yield measure


@contextmanager
def idle_load() -> Iterator[Measure]:
    """Start a server and yield a measurement of its share of a core, in percent, while idle."""
    with processes.mnist37() as server, Client(server.address) as client:
        client.train(10).wait()
        client.get_model()

        def cpu_nanoseconds() -> int:
            """Return the time that all the server's threads have run."""
            threads = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
            return sum(int(thread.read_text().split()[0]) for thread in threads)

        def measure(seconds: float) -> float:
            time.sleep(SETTLE_SECONDS)
            before, start = cpu_nanoseconds(), time.perf_counter()
            time.sleep(seconds)
            return (cpu_nanoseconds() - before) / (time.perf_counter() - start) / 1e9 * 100

        yield measure


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    predictions, epochs = SOAK if options.soak else CALLS
    return [
        Benchmark(
            key="small-ready",
            name="seconds until a server is ready",
            unit="s",
            aim=Aim("at most", 1.3),
            a=startup,
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
            a=partial(memory_growth, options),
            figure=Figure.VALUE,
            pairs=1,
            rounds=1,
        ),
        Benchmark(
            key="small-idle",
            name="processor that an idle server takes, of a core",
            unit="%",
            aim=Aim("at most", 0.2),
            a=idle_load,
            figure=Figure.VALUE,
            seconds=3.0,
            pairs=1,
        ),
    ]
