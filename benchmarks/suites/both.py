"""Training and predictions at the same time, on two cores that server and clients share."""

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
from benchmarks.suites.predict import IN_FLIGHT, answer_bytes, request_body

LOAD_SHARE = 0.30  # of the server's peak rate
EPOCHS = 1_000_000  # far more than a measurement lasts
MARGIN_SECONDS = 0.15  # for which one client works before the other is measured, and after it


def percentile_99(latencies: list[float]) -> float:
    """Return the 99th percentile of some latencies."""
    return statistics.quantiles(latencies, n=100)[-1]


@cache
def peak_rate() -> float:
    """Measure the calls a second of a saturated server that shares two cores with h2load."""
    with processes.mnist37(cores=BOTH) as server, processes.pinned_to(BOTH):
        loop = h2load.ClosedLoop(
            server.address, "Predict", request_body(1), answer_bytes(1) - 3, IN_FLIGHT[1]
        )
        loop(0.5)
        return loop(1.0)


def measure_predict_p99(address: str, rate: float | None) -> Measure:
    """Return a measurement of Predict's p99 in seconds.

    Args:
        address: HOST:PORT of the server.
        rate: the calls a second of an open loop; None makes one call at a time.
    """

    def measure(seconds: float) -> float:
        # The response is up to 3 bytes shorter than a trained server's: the version, a varint,
        # grows from none to a few bytes while the server trains. Each measurement opens a new
        # connection, because between two measurements no code would answer the server's pings.
        connect = partial(http2.Calls, address, "Predict", request_body(1), answer_bytes(1) - 3)
        with closing(connect()) as calls:
            if rate is None:
                return percentile_99(calls.one_at_a_time(seconds))
            return percentile_99(calls.open_loop(rate, seconds))

    return measure


def measure_epoch_rate(address: str) -> Measure:
    """Return a measurement of the epochs a second of a run, which stops when the time is over.

    The time is the run's own `elapsed`, because the client receives many epochs in one message.
    """
    client = Client(address)

    def measure(seconds: float) -> float:
        with client.train(EPOCHS) as run:
            first, start = next(run), time.perf_counter()
            for last in run:
                if time.perf_counter() - start >= seconds:
                    return (last.epoch - first.epoch) / (last.elapsed - first.elapsed)
        raise RuntimeError("the run stopped by itself")

    return measure


@contextmanager
def clients(rate: float | None, *flags: str) -> Iterator[tuple[Worker, Worker]]:
    """Start a server with further flags, and two clients of it: one predicts, one trains.

    Args:
        rate: the calls a second of the client that predicts; None makes one call at a time.
        flags: further flags of `mnist37 serve`.
    """
    processes.require_two_cores()
    with (
        processes.mnist37(*flags, cores=BOTH) as server,
        processes.worker(BOTH, measure_predict_p99, server.address, rate) as predictor,
        processes.worker(BOTH, measure_epoch_rate, server.address) as trainer,
    ):
        yield predictor, trainer


def measure_during(other: Worker, measure: Worker, seconds: float) -> float:
    """Return the measurement of one client, taken while the other one works."""
    other.begin(seconds + 2 * MARGIN_SECONDS)
    time.sleep(MARGIN_SECONDS)
    value = measure(seconds)
    other.result()
    return value


@contextmanager
def p99(*flags: str, while_training: bool, loaded: bool) -> Iterator[Measure]:
    """Start a server and two clients, and yield a measurement of Predict's p99 in seconds.

    Args:
        flags: further flags of `mnist37 serve`.
        while_training: measure while the other client trains.
        loaded: measure an open loop at LOAD_SHARE of the peak rate, not one call at a time.
    """
    with clients(LOAD_SHARE * peak_rate() if loaded else None, *flags) as (predictor, trainer):
        if while_training:
            yield partial(measure_during, trainer, predictor)
        else:
            yield predictor


@contextmanager
def epoch_rate(*, while_predicting: bool) -> Iterator[Measure]:
    """Start a server and two clients, and yield a measurement of the epochs a second.

    Args:
        while_predicting: measure while the other client predicts at LOAD_SHARE of the peak rate.
    """
    with clients(LOAD_SHARE * peak_rate()) as (predictor, trainer):
        if while_predicting:
            yield partial(measure_during, predictor, trainer)
        else:
            yield trainer


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
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
            seconds=1.5,  # long enough that one in a hundred random calls makes some dozens
        ),
        Benchmark(
            key="both-epochs",
            name=f"epochs a second: at {LOAD_SHARE:.0%} of Predict's peak load / alone",
            unit="/s",
            aim=Aim("at least", 0.8),
            a=partial(epoch_rate, while_predicting=True),
            b=partial(epoch_rate, while_predicting=False),
            seconds=0.4,
        ),
    ]
