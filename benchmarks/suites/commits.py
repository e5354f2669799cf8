"""The cost of durability: an acknowledged write is never lost."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import grpc
from mnist37_client import Client
from mnist37_client._rpc.messages.requests import ensure_request_id
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.processes import LOAD, Server
from benchmarks.suites.predict import Target, empty_server
from benchmarks.suites.training import measure_rpc_epoch

VERSIONS = 100_000
CLIENTS = 16


@contextmanager
def disk_server(options: Options, *flags: str, module: str = "mnist37_server") -> Iterator[Server]:
    """Start a server whose state folder is on disk, with further flags."""
    with (
        processes.temporary_folder(options.disk) as folder,
        processes.mnist37(*flags, state=folder, module=module) as server,
    ):
        yield server


def measure_step(address: str) -> Measure:
    """Return a measurement of the median seconds of a Step with a request id, one at a time."""
    return baselines.measure_median(Client(address).step)


@contextmanager
def durable_step(options: Options) -> Iterator[Measure]:
    """Start a server with its state on disk, and yield a measurement of the seconds of a Step."""
    with (
        disk_server(options) as server,
        processes.worker(LOAD, measure_step, server.address) as measure,
    ):
        yield measure


@contextmanager
def sync_and_step(options: Options) -> Iterator[Measure]:
    """Yield a measurement of the seconds of a plain fdatasync, plus those of a Step in memory.

    The fdatasync is of as many bytes as a Step commits.
    """
    with (
        processes.temporary_folder(options.disk) as folder,
        processes.mnist37() as server,
        processes.worker(LOAD, measure_step, server.address) as in_memory,
        processes.worker(LOAD, baselines.fdatasync, folder, bytes_a_step(options)) as sync,
    ):
        yield lambda seconds: sync(seconds / 2) + in_memory(seconds / 2)


@cache
def bytes_a_step(options: Options) -> int:
    """Measure the bytes that the commit of one Step writes, without checkpoints of SQLite's log.

    The source is `wchar` in Linux' /proc/PID/io.
    """
    with disk_server(options) as server, Client(server.address) as client:

        def bytes_written() -> int:
            lines = Path(f"/proc/{server.pid}/io").read_text().splitlines()
            return int(dict(line.split(": ") for line in lines)["wchar"])

        def mean_of_10_steps() -> float:
            before = bytes_written()
            for _ in range(10):
                client.step()
            return (bytes_written() - before) / 10

        # Some of these means contain a checkpoint of the log; the median does not.
        return round(statistics.median(mean_of_10_steps() for _ in range(25)))


def measure_step_rate(address: str, clients: int) -> Measure:
    """Return a measurement of the Steps a second that the server acknowledges.

    Args:
        address: HOST:PORT of the server.
        clients: the number of clients, each with its own connection.
    """

    def measure(seconds: float) -> float:
        steps = [0] * clients
        stop = threading.Event()

        def run_client(index: int) -> None:
            # Without this option, channels to one address share a connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options) as channel:
                call = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Step
                while not stop.is_set():
                    call(pb.StepRequest(request_id=ensure_request_id(None)))
                    steps[index] += 1

        threads = [threading.Thread(target=run_client, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        while not all(steps):
            time.sleep(0.01)
        before, start = sum(steps), time.perf_counter()
        time.sleep(seconds)
        rate = (sum(steps) - before) / (time.perf_counter() - start)
        stop.set()
        for thread in threads:
            thread.join()
        return rate

    return measure


@contextmanager
def step_rate(target: Target, clients: int) -> Iterator[Measure]:
    """Start a server and yield a measurement of the Steps a second of so many clients."""
    with (
        target() as server,
        processes.worker(LOAD, measure_step_rate, server.address, clients) as measure,
    ):
        yield measure


@contextmanager
def epoch_rate(target: Target) -> Iterator[Measure]:
    """Start a server and yield a measurement of the epochs a second over RPC."""
    with target() as server, processes.worker(LOAD, measure_rpc_epoch, server.address) as measure:
        yield lambda seconds: 1 / measure(seconds)


@cache
def old_state(options: Options) -> tempfile.TemporaryDirectory[str]:
    """Write a state folder after 100,000 versions; it is deleted when the process ends."""
    from mnist37_server.domain.records import RequestRecord
    from mnist37_server.domain.snapshot import Origin, Snapshot
    from mnist37_server.storage.store import Store

    folder = tempfile.TemporaryDirectory(prefix=".bench-", dir=options.disk)
    store = Store(Path(folder.name))
    parameters = bytes(785 * 4)
    for start in range(0, VERSIONS, 100):
        snapshots = [Snapshot(start + i, parameters, 0, Origin.STEP) for i in range(100)]
        records = [
            RequestRecord(f"id {s.version}", b"x" * 32, s.version, (0.1, 1)) for s in snapshots
        ]
        store.commit(snapshots, records)
    store.close()
    return folder


@contextmanager
def startup(options: Options, *, old: bool) -> Iterator[Measure]:
    """Yield a measurement of the seconds until a server is ready.

    Args:
        options: the options that name the disk of the state folder.
        old: start with the state of `old_state`, not with a new one.
    """

    def measure(seconds: float) -> float:
        with processes.temporary_folder(options.disk) as new:
            folder = old_state(options).name if old else new
            start = time.perf_counter()
            with processes.mnist37(state=folder):
                return time.perf_counter() - start

    if old:
        old_state(options)
    yield measure


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    slow_disk = partial(disk_server, options, module="benchmarks.slow_disk")
    return [
        Benchmark(
            key="commits-step",
            name="a Step on disk, p50 / (an fdatasync + a Step in memory)",
            unit="s",
            aim=Aim("at most", 1.3),
            a=partial(durable_step, options),
            b=partial(sync_and_step, options),
            seconds=0.4,
        ),
        Benchmark(
            key="commits-training",
            name="epochs a second: on disk / in memory",
            unit="/s",
            aim=Aim("at least", 0.95),
            a=partial(epoch_rate, partial(disk_server, options)),
            b=partial(epoch_rate, processes.mnist37),
            seconds=0.4,
        ),
        Benchmark(
            key="commits-together",
            name="Steps a second, 5 ms more a sync: 16 clients / one",
            unit="/s",
            aim=Aim("at least", 8),
            a=partial(step_rate, slow_disk, CLIENTS),
            b=partial(step_rate, slow_disk, 1),
            seconds=0.4,
        ),
        Benchmark(
            key="commits-empty",
            name="Steps a second of 16 clients: on disk / an empty servicer",
            unit="/s",
            aim=Aim("at least", 0.5),
            a=partial(step_rate, partial(disk_server, options), CLIENTS),
            b=partial(step_rate, empty_server, CLIENTS),
            seconds=0.4,
            rounds=6,  # two servers of one kind differ by 5 %
        ),
        Benchmark(
            key="commits-opening",
            name=f"seconds until it is ready: {VERSIONS:,} versions - none",
            unit="s",
            aim=Aim("at most", 0.5),
            a=partial(startup, options, old=True),
            b=partial(startup, options, old=False),
            figure=Figure.DIFFERENCE,
            pairs=3,
            rounds=1,
        ),
    ]
