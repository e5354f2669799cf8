"""Followers: what they cost the owner, how late they are, and what they answer."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import grpc
from mnist37_client import Client
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, MissingRequirement, Options
from benchmarks.load import h2load
from benchmarks.processes import BOTH, CORES, LOAD, SERVER, Server
from benchmarks.suites.predict import IN_FLIGHT, answer_bytes, empty_server, request_body

READERS = 16
CLIENTS = 16
CALLS = 3_000


@contextmanager
def follower(owner: Server, cores: frozenset[int] = frozenset(SERVER)) -> Iterator[Server]:
    """Start a follower and wait until it answers."""
    flags = ("--address", "127.0.0.1:0", "--follow", owner.address, "--max-rpcs", "0")
    with processes.server("mnist37_server", *flags, cores=cores) as server:
        wait_until_ready(server.address)
        yield server


def wait_until_ready(address: str) -> None:
    """Wait until a follower answers a prediction."""
    with grpc.insecure_channel(address) as channel:
        predict = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Predict
        end_time = time.monotonic() + 30
        while True:
            try:
                predict(pb.PredictRequest(pixels=bytes(784)))
                return
            except grpc.RpcError:
                if time.monotonic() > end_time:
                    raise
                time.sleep(0.005)


@contextmanager
def trained_owner() -> Iterator[Server]:
    """Start an owner, beside the server's core, and train it briefly."""
    with processes.mnist37(cores=LOAD) as server, Client(server.address) as client:
        client.train(baselines.EPOCHS).wait()
        yield server


@contextmanager
def followers_of(owner: Server, count: int) -> Iterator[list[Server]]:
    """Start followers, which share two cores with their clients."""
    with ExitStack() as servers:
        yield [servers.enter_context(follower(owner, frozenset(BOTH))) for _ in range(count)]


@contextmanager
def readiness() -> Iterator[Measure]:
    """Yield a measurement of the seconds until a follower answers."""
    with trained_owner() as owner:

        def measure(seconds: float) -> float:
            start = time.perf_counter()
            with follower(owner):
                return time.perf_counter() - start

        yield measure


@contextmanager
def memory() -> Iterator[Measure]:
    """Yield a measurement of a follower's memory (PSS) in MB, after predictions."""
    with trained_owner() as owner, follower(owner) as server:
        h2load.ClosedLoop(
            server.address, "Predict", request_body(1), answer_bytes(1), IN_FLIGHT[1]
        ).run(20_000)

        def measure(seconds: float) -> float:
            rollup = Path(f"/proc/{server.pid}/smaps_rollup").read_text()
            return int(rollup.partition("\nPss:")[2].split()[0]) / 1000

        yield measure


@contextmanager
def throughput() -> Iterator[Measure]:
    """Yield a measurement of a follower's Predicts a second, one image each."""
    with trained_owner() as owner, follower(owner) as server:
        yield h2load.ClosedLoop(
            server.address, "Predict", request_body(1), answer_bytes(1), IN_FLIGHT[1]
        )


@contextmanager
def empty_throughput() -> Iterator[Measure]:
    """Yield a measurement of the Predicts a second of a servicer that does nothing."""
    with empty_server() as server:
        yield h2load.ClosedLoop(
            server.address, "Predict", request_body(1), answer_bytes(1), IN_FLIGHT[1]
        )


@contextmanager
def floor_throughput(*, with_floor: bool) -> Iterator[Measure]:
    """Yield a measurement of the owner's Predicts a second, with a floor that is met or without."""
    with processes.mnist37("--max-rpcs", "0") as server, Client(server.address) as client:
        client.train(baselines.EPOCHS).wait()
        request = pb.PredictRequest.FromString(baselines.predict_request(1))
        if with_floor:
            with grpc.insecure_channel(server.address) as channel:
                stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
                newest = stub.GetModel(pb.GetModelRequest())
            request.start, request.min_version = newest.start, newest.version
        body = h2load.frame(request.SerializeToString())
        yield h2load.ClosedLoop(server.address, "Predict", body, answer_bytes(1), IN_FLIGHT[1])


@contextmanager
def core_seconds_a_call(count: int) -> Iterator[Measure]:
    """Yield a measurement of the followers' CPU seconds a call, all of them under load at once."""
    processes.require_two_cores()
    with trained_owner() as owner, followers_of(owner, count) as servers:
        loops = [
            h2load.ClosedLoop(server.address, "Predict", request_body(1), answer_bytes(1), 16)
            for server in servers
        ]

        def used() -> float:
            return sum(cpu_seconds(server.pid) for server in servers)

        def measure(seconds: float) -> float:
            before = used()
            threads = [threading.Thread(target=loop.run, args=(CALLS,)) for loop in loops]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return (used() - before) / (CALLS * len(loops))

        yield measure


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def combined_rate(count: int) -> Iterator[Measure]:
    """Yield a measurement of the Predicts a second of followers, each on a core of its own."""
    if len(CORES) < 2 * count + 1:
        raise MissingRequirement(f"needs {2 * count + 1} cores")
    with trained_owner() as owner, ExitStack() as servers:
        loops = []
        for number in range(count):
            server = servers.enter_context(follower(owner, frozenset({CORES[number]})))
            loops.append(
                h2load.ClosedLoop(
                    server.address, "Predict", request_body(1), answer_bytes(1), IN_FLIGHT[1]
                )
            )

        def measure(seconds: float) -> float:
            rates = [0.0] * count
            threads = [
                threading.Thread(target=lambda i=i: rates.__setitem__(i, loops[i](seconds)))
                for i in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return statistics.fmean(rates)

        yield measure


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    return [
        Benchmark(
            key="followers-predict",
            name="Predict, 1 a call: a follower / an empty servicer",
            unit="/s",
            aim=Aim("at least", 0.90),
            a=throughput,
            b=empty_throughput,
        ),
        Benchmark(
            key="followers-floor",
            name="Predict, 1 a call: with a floor that is met / without",
            unit="/s",
            aim=Aim("at least", 0.97),
            a=partial(floor_throughput, with_floor=True),
            b=partial(floor_throughput, with_floor=False),
        ),
        Benchmark(
            key="followers-core",
            name="CPU seconds a call: two followers / one, on two cores",
            unit="s",
            aim=Aim("at most", 1.25),
            a=partial(core_seconds_a_call, 2),
            b=partial(core_seconds_a_call, 1),
            pairs=4,
        ),
        Benchmark(
            key="followers-many",
            name="Predicts a second and follower: four / one, a core each",
            unit="/s",
            aim=Aim("at least", 0.95),
            a=partial(combined_rate, 4),
            b=partial(combined_rate, 1),
        ),
        Benchmark(
            key="followers-ready",
            name="seconds until a follower answers",
            unit="s",
            aim=Aim("at most", 1.2),
            a=readiness,
            figure=Figure.VALUE,
            pairs=3,
            rounds=2,
        ),
        Benchmark(
            key="followers-memory",
            name="a follower's memory (PSS)",
            unit="MB",
            aim=Aim("at most", 120),
            a=memory,
            figure=Figure.VALUE,
            pairs=1,
        ),
    ]
