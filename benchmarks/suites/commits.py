"""What it costs that nothing acknowledged is ever lost."""

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
from mnist37_client._rpc.calls import ensure_request_id
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.processes import LOAD, Server
from benchmarks.suites.predict import Target, empty
from benchmarks.suites.training import run_over_rpc

VERSIONS = 100_000
CLIENTS = 16


@contextmanager
def on_disk(options: Options, module: str = "mnist37_server") -> Iterator[Server]:
    """A server whose state is on disk."""
    with (
        processes.temporary_folder(options.disk) as folder,
        processes.mnist37(state=folder, module=module) as server,
    ):
        yield server


def step(address: str) -> Measure:
    """The median seconds of a Step with an id, one after the other."""
    return baselines.measure_median(Client(address).step)


@contextmanager
def durable_step(options: Options) -> Iterator[Measure]:
    """Of a server whose state is on disk."""
    with on_disk(options) as server, processes.worker(LOAD, step, server.address) as measure:
        yield measure


@contextmanager
def sync_and_step(options: Options) -> Iterator[Measure]:
    """A raw fdatasync of as many bytes as a Step commits, plus a Step in memory."""
    with (
        processes.temporary_folder(options.disk) as folder,
        processes.mnist37() as server,
        processes.worker(LOAD, step, server.address) as in_memory,
        processes.worker(LOAD, baselines.fdatasync, folder, bytes_a_step(options)) as sync,
    ):
        yield lambda seconds: sync(seconds / 2) + in_memory(seconds / 2)


@cache
def bytes_a_step(options: Options) -> int:
    """What the commit of one Step writes, as Linux counts it, between checkpoints of the log."""
    with on_disk(options) as server, Client(server.address) as client:

        def written() -> int:
            lines = Path(f"/proc/{server.pid}/io").read_text().splitlines()
            return int(dict(line.split(": ") for line in lines)["wchar"])

        def of_a_few() -> float:
            before = written()
            for _ in range(10):
                client.step()
            return (written() - before) / 10

        # Some of these have a checkpoint in them; the median has none.
        return round(statistics.median(of_a_few() for _ in range(25)))


def steps_a_second(address: str, clients: int) -> Measure:
    """How many Steps so many clients, each with a connection of its own, get acknowledged."""

    def measure(seconds: float) -> float:
        done = [0] * clients
        over = threading.Event()

        def work(number: int) -> None:
            # Channels to one address share a connection unless they are told apart.
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options) as channel:
                call = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Step
                while not over.is_set():
                    call(pb.StepRequest(request_id=ensure_request_id(None)))
                    done[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        while not all(done):
            time.sleep(0.01)
        before, began = sum(done), time.perf_counter()
        time.sleep(seconds)
        rate = (sum(done) - before) / (time.perf_counter() - began)
        over.set()
        for thread in threads:
            thread.join()
        return rate

    return measure


@contextmanager
def stepping(target: Target, clients: int) -> Iterator[Measure]:
    """The same, of a server that is started for it."""
    with (
        target() as server,
        processes.worker(LOAD, steps_a_second, server.address, clients) as measure,
    ):
        yield measure


@contextmanager
def an_epoch(target: Target) -> Iterator[Measure]:
    """Epochs a second of runs over RPC."""
    with target() as server, processes.worker(LOAD, run_over_rpc, server.address) as measure:
        yield lambda seconds: 1 / measure(seconds)


@cache
def old_state(options: Options) -> tempfile.TemporaryDirectory[str]:
    """A state with 100,000 versions behind it; gone when the command ends."""
    from mnist37_server.domain.records import RequestRecord
    from mnist37_server.domain.snapshot import Origin, Snapshot
    from mnist37_server.storage.store import Store

    folder = tempfile.TemporaryDirectory(prefix=".bench-", dir=options.disk)
    state = Store(Path(folder.name))
    parameters = bytes(785 * 4)
    for start in range(0, VERSIONS, 100):
        made = [Snapshot(start + i, parameters, 0, Origin.STEP) for i in range(100)]
        named = [RequestRecord(f"id {s.version}", b"x" * 32, s.version, (0.1, 1)) for s in made]
        state.commit(made, named)
    state.close()
    return folder


@contextmanager
def opening(options: Options, *, old: bool) -> Iterator[Measure]:
    """Seconds until a server is ready, on an old state or a new one."""

    def measure(seconds: float) -> float:
        with processes.temporary_folder(options.disk) as new:
            folder = old_state(options).name if old else new
            began = time.perf_counter()
            with processes.mnist37(state=folder):
                return time.perf_counter() - began

    if old:
        old_state(options)
    yield measure


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    slow_disk = partial(on_disk, options, "benchmarks.slow_disk")
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
            a=partial(an_epoch, partial(on_disk, options)),
            b=partial(an_epoch, processes.mnist37),
            seconds=0.4,
        ),
        Benchmark(
            key="commits-together",
            name="Steps a second, 5 ms more a sync: 16 clients / one",
            unit="/s",
            aim=Aim("at least", 8),
            a=partial(stepping, slow_disk, CLIENTS),
            b=partial(stepping, slow_disk, 1),
            seconds=0.4,
        ),
        Benchmark(
            key="commits-empty",
            name="Steps a second of 16 clients: on disk / an empty servicer",
            unit="/s",
            aim=Aim("at least", 0.5),
            a=partial(stepping, partial(on_disk, options), CLIENTS),
            b=partial(stepping, empty, CLIENTS),
            seconds=0.4,
            rounds=6,  # two servers of one kind differ by 5 %
        ),
        Benchmark(
            key="commits-opening",
            name=f"seconds until it is ready: {VERSIONS:,} versions - none",
            unit="s",
            aim=Aim("at most", 0.5),
            a=partial(opening, options, old=True),
            b=partial(opening, options, old=False),
            figure=Figure.DIFFERENCE,
            pairs=3,
            rounds=1,
        ),
    ]
