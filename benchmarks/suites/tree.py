"""A tree of followers, 1 to 4 to 16: how late its leaves are, and what it costs the owner."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from mnist37_client import Client

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.load.follow import idle_readers, measure_delay
from benchmarks.processes import BOTH, LOAD, Server
from benchmarks.suites.commits import disk_server
from benchmarks.suites.followers import follower

MIDDLES = 4  # followers of the owner
LEAVES = 4  # followers of each of these
STEP_SECONDS = 0.02  # from one Step to the next


@contextmanager
def followers_of(servers: Sequence[Server], count: int) -> Iterator[list[Server]]:
    """Start so many followers of each of these servers."""
    with ExitStack() as started:
        yield [
            started.enter_context(follower(server, frozenset(BOTH)))
            for server in servers
            for _ in range(count)
        ]


@contextmanager
def delay(options: Options, share: float) -> Iterator[Measure]:
    """Yield a measurement of how late the leaves are during a run.

    A reader of Follow at one leaf of each branch notes when a version comes, so one hop more is
    measured. At each branch it is another leaf: the first ones are woken before the others.
    """
    processes.require_two_cores()
    with (
        disk_server(options) as owner,
        followers_of([owner], MIDDLES) as middles,
        followers_of(middles, LEAVES) as leaves,
        processes.worker(
            BOTH,
            measure_delay,
            owner.address,
            [leaf.address for leaf in leaves[:: LEAVES + 1]],
            share,
        ) as measure,
    ):
        yield measure


@contextmanager
def owners_cost(options: Options, leaves: int) -> Iterator[Measure]:
    """Yield a measurement of the owner's CPU seconds a Step, with 4 followers.

    Args:
        options: of the run.
        leaves: readers of Follow at each of the followers, all in one process.
    """
    with (
        disk_server(options) as owner,
        followers_of([owner], MIDDLES) as middles,
        processes.worker(LOAD, idle_readers, [m.address for m in middles for _ in range(leaves)]),
        processes.worker(LOAD, measure_steps_cost, owner.address, owner.pid) as measure,
    ):
        yield measure


def measure_steps_cost(address: str, pid: int) -> Measure:
    """Return a measurement of a server's CPU seconds a Step, at 50 Steps a second."""
    client = Client(address)
    # The clock of another process's CPU time, as clock_getcpuclockid(3) makes its number.
    clock = (~pid << 3) | 2

    def measure(seconds: float) -> float:
        count = max(1, round(seconds / STEP_SECONDS))
        before, due = time.clock_gettime(clock), time.monotonic()
        for _ in range(count):
            client.step()
            due += STEP_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
        return (time.clock_gettime(clock) - before) / count

    return measure


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    return [
        *(
            Benchmark(
                key=f"tree-late-p{percent}",
                name=f"commit to a leaf of 1 to 4 to 16, p{percent}, during a run",
                unit="s",
                aim=Aim("at most", bound),
                a=partial(delay, options, percent / 100),
                figure=Figure.VALUE,
                seconds=2.0,
                pairs=3,
                rounds=1,
            )
            for percent, bound in ((50, 0.010), (99, 0.060))
        ),
        Benchmark(
            key="tree-owner",
            name="the owner's CPU a Step: 4 followers with 16 / 4 without",
            unit="s",
            aim=Aim("at most", 1.1),
            a=partial(owners_cost, options, LEAVES),
            b=partial(owners_cost, options, 0),
            seconds=2.0,
        ),
    ]
