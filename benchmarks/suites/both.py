"""Training and serving at the same time, on two cores that server and clients share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache, partial

from mnist37_client import Client

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Measure, Options
from benchmarks.load import h2load, http2
from benchmarks.processes import BOTH, Worker
from benchmarks.suites.predict import IN_FLIGHT, answer, body

LOAD_SHARE = 0.30  # of what the server can answer
EPOCHS = 1_000_000  # a run without end
MARGIN_SECONDS = (
    0.15  # seconds for which the one goes on before the other is measured, and after it
)


def percentile_99(latencies: list[float]) -> float:
    """What 99 of 100 calls stay below."""
    return statistics.quantiles(latencies, n=100)[-1]


@cache
def peak() -> float:
    """Calls a second that fill a server on these two cores, h2load on them too."""
    with processes.mnist37(cores=BOTH) as server, processes.pinned_to(BOTH):
        loop = h2load.ClosedLoop(server.address, "Predict", body(1), answer(1) - 3, IN_FLIGHT[1])
        loop(0.5)
        return loop(1.0)


def predicting(address: str, rate: float | None) -> Measure:
    """The p99 of Predict: of one call at a time, or of an open loop at this rate."""

    def measure(seconds: float) -> float:
        # The version grows while the server trains, from none to a few bytes. The connection is a
        # new one: while it is others' turn, nobody would answer the server's pings on it.
        with closing(http2.Calls(address, "Predict", body(1), answer(1) - 3)) as calls:
            if rate is None:
                return percentile_99(calls.one_at_a_time(seconds))
            return percentile_99(calls.open_loop(rate, seconds))

    return measure


def training(address: str) -> Measure:
    """Epochs a second of a run without end, that stops when the time is over.

    By the run's own clock: the client hears of many epochs at a time.
    """
    client = Client(address)

    def measure(seconds: float) -> float:
        with client.train(EPOCHS) as run:
            first, began = next(run), time.perf_counter()
            for last in run:
                if time.perf_counter() - began >= seconds:
                    return (last.epoch - first.epoch) / (last.elapsed - first.elapsed)
        raise RuntimeError("the run stopped by itself")

    return measure


@contextmanager
def clients(rate: float | None, *flags: str) -> Iterator[tuple[Worker, Worker]]:
    """A server with these flags, and two clients of it: one that predicts, one that trains."""
    processes.require_two_cores()
    with (
        processes.mnist37(*flags, cores=BOTH) as server,
        processes.worker(BOTH, predicting, server.address, rate) as predicts,
        processes.worker(BOTH, training, server.address) as trains,
    ):
        yield predicts, trains


def measure_during(other: Worker, measure: Worker, seconds: float) -> float:
    """What one client finds while the other is at work."""
    other.begin(seconds + 2 * MARGIN_SECONDS)
    time.sleep(MARGIN_SECONDS)
    found = measure(seconds)
    other.result()
    return found


@contextmanager
def p99(*flags: str, while_training: bool, loaded: bool) -> Iterator[Measure]:
    """The p99 of Predict, idle or while a client trains, by a server with these flags."""
    with clients(LOAD_SHARE * peak() if loaded else None, *flags) as (predicts, trains):
        if while_training:
            yield partial(measure_during, trains, predicts)
        else:
            yield predicts


@contextmanager
def epochs(*, while_predicting: bool) -> Iterator[Measure]:
    """Epochs a second, alone or while clients ask for predictions."""
    with clients(LOAD_SHARE * peak()) as (predicts, trains):
        if while_predicting:
            yield partial(measure_during, predicts, trains)
        else:
            yield trains


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    return [
        Benchmark(
            key="both-one-call",
            name="Predict, p99 of one call at a time: while training / idle",
            unit="s",
            aim=Aim("at most", 1.5),
            a=partial(p99, while_training=True, loaded=False),
            b=partial(p99, while_training=False, loaded=False),
            seconds=0.5,
        ),
        Benchmark(
            key="both-loaded",
            name=f"Predict, p99 at {LOAD_SHARE:.0%} of peak load: while training / idle",
            unit="s",
            aim=Aim("at most", 1.5),
            a=partial(p99, while_training=True, loaded=True),
            b=partial(p99, while_training=False, loaded=True),
            seconds=1.5,  # a hundredth of the calls, which come at random, shall be some dozens
        ),
        Benchmark(
            key="both-epochs",
            name=f"epochs a second: at {LOAD_SHARE:.0%} of Predict's peak load / alone",
            unit="/s",
            aim=Aim("at least", 0.8),
            a=partial(epochs, while_predicting=True),
            b=partial(epochs, while_predicting=False),
            seconds=0.4,
        ),
    ]
