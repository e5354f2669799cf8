"""Follow: how late its readers are, and what they cost the owner."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.load.follow import idle_readers, measure_commit, measure_delay
from benchmarks.processes import BOTH, LOAD, Server
from benchmarks.suites.both import measure_predict_p99
from benchmarks.suites.commits import disk_server, measure_step_rate
from benchmarks.suites.training import measure_rpc_epoch

READERS = 16
CLIENTS = 16


@contextmanager
def delay(options: Options, readers: int, share: float) -> Iterator[Measure]:
    """Start an owner and yield a measurement of how late its readers are during a run."""
    processes.require_two_cores()
    with (
        disk_server(options) as owner,
        processes.worker(
            LOAD, measure_delay, owner.address, [owner.address] * readers, share
        ) as measure,
    ):
        yield measure


@contextmanager
def commit_time(options: Options, readers: int) -> Iterator[Measure]:
    """Yield a measurement of the seconds that a commit takes during a run that is followed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        metrics = f"127.0.0.1:{probe.getsockname()[1]}"
    with (
        disk_server(options, "--metrics-address", metrics) as owner,
        processes.worker(
            LOAD, measure_commit, owner.address, metrics, [owner.address] * readers
        ) as measure,
    ):
        yield measure


@contextmanager
def owner_with_readers(options: Options, readers: int) -> Iterator[Server]:
    """Start an owner and readers of Follow in a process beside it."""
    with disk_server(options) as owner:
        if not readers:
            yield owner
            return
        with processes.worker(LOAD, idle_readers, [owner.address] * readers):
            yield owner


@contextmanager
def epoch_rate(options: Options, readers: int) -> Iterator[Measure]:
    """Yield a measurement of the epochs a second of a followed owner."""
    with (
        owner_with_readers(options, readers) as owner,
        processes.worker(LOAD, measure_rpc_epoch, owner.address) as measure,
    ):
        yield lambda seconds: 1 / measure(seconds)


@contextmanager
def step_rate(options: Options, readers: int) -> Iterator[Measure]:
    """Yield a measurement of the Steps a second of a followed owner."""
    with (
        owner_with_readers(options, readers) as owner,
        processes.worker(LOAD, measure_step_rate, owner.address, CLIENTS) as measure,
    ):
        yield measure


@contextmanager
def predict_p99(options: Options, readers: int) -> Iterator[Measure]:
    """Yield a measurement of Predict's p99 in seconds at a followed owner that does Steps."""
    processes.require_two_cores()
    with (
        owner_with_readers(options, readers) as owner,
        processes.worker(BOTH, measure_step_rate, owner.address, 1) as steps,
        processes.worker(BOTH, measure_predict_p99, owner.address, None) as measure,
    ):

        def measure_during_steps(seconds: float) -> float:
            steps.begin(seconds + 0.3)
            time.sleep(0.15)
            value = measure(seconds)
            steps.result()
            return value

        yield measure_during_steps


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    return [
        Benchmark(
            key="follow-late-1-p50",
            name="commit to a follower, p50 of 1, during a run - the commit's own time",
            unit="s",
            aim=Aim("at most", 0.002),
            a=partial(delay, options, 1, 0.5),
            b=partial(commit_time, options, 1),
            figure=Figure.DIFFERENCE,
            seconds=1.0,
            pairs=3,
        ),
        *(
            Benchmark(
                key=f"follow-late-{readers}-p{percent}",
                name=f"commit to a follower, p{percent} of {readers}, during a run",
                unit="s",
                aim=Aim("at most", bound),
                a=partial(delay, options, readers, percent / 100),
                figure=Figure.VALUE,
                seconds=1.0,
                pairs=3,
            )
            for readers, percent, bound in ((1, 99, 0.010), (READERS, 99, 0.040))
        ),
        Benchmark(
            key="follow-epochs",
            name=f"epochs a second: with {READERS} readers of Follow / without",
            unit="/s",
            aim=Aim("at least", 0.97),
            a=partial(epoch_rate, options, READERS),
            b=partial(epoch_rate, options, 0),
            seconds=0.4,
        ),
        Benchmark(
            key="follow-steps",
            name=f"Steps a second of 16 clients: with {READERS} readers of Follow / without",
            unit="/s",
            aim=Aim("at least", 0.85),
            a=partial(step_rate, options, READERS),
            b=partial(step_rate, options, 0),
            seconds=0.4,
        ),
        Benchmark(
            key="follow-p99",
            name=f"Predict's p99 during Steps: with {READERS} readers of Follow / without",
            unit="s",
            aim=Aim("at most", 1.3),
            a=partial(predict_p99, options, READERS),
            b=partial(predict_p99, options, 0),
            seconds=0.4,
        ),
    ]
