"""What a commit costs: ratios, each of two things measured in turn in one run.

    python benchmarks/commits.py

Prints a table and writes benchmarks/results/commits-HOST.json. The server is on one core and the
load on another, where there are two.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
from mnist37_client import Client, Unavailable
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from mnist37_server import app, history, servicer, state
from mnist37_server.config import Config
from mnist37_server.snapshot import Origin, Snapshot

FORKSERVER = multiprocessing.get_context("forkserver")
CORES = sorted(os.sched_getaffinity(0))
PAIRS = 7


class SlowSync(sqlite3.Connection):
    """A disk whose syncs take 5 ms longer."""

    def execute(self, sql: str, *arguments: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            time.sleep(0.005)
        return super().execute(sql, *arguments)  # type: ignore[arg-type]


class Empty(mnist37_pb2_grpc.Mnist37ServiceServicer):
    """Answers every Step with the same bytes, and computes nothing."""

    def Step(self, request: pb.StepRequest, context: grpc.ServicerContext) -> pb.StepResponse:
        return pb.StepResponse(loss=0.123456789, version=1_000_000)


def serve_mnist37(config: Config, slow: bool) -> None:
    os.sched_setaffinity(0, CORES[:1])
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    if slow:
        state.connection_class = SlowSync
    app.run(config)


def serve_nothing(config: Config, slow: bool) -> None:
    os.sched_setaffinity(0, CORES[:1])
    server = grpc.server(ThreadPoolExecutor(servicer.SHORT_CALLS))
    mnist37_pb2_grpc.add_Mnist37ServiceServicer_to_server(Empty(), server)
    server.add_insecure_port(config.address)
    server.start()
    server.wait_for_termination()


@contextmanager
def served(
    folder: Path | None,
    *,
    slow: bool = False,
    how: Callable[[Config, bool], None] = serve_mnist37,
) -> Iterator[str]:
    """The address of a server in a process of its own."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = replace(Config(), address=f"127.0.0.1:{port}", device="cpu", state=folder)
    process = FORKSERVER.Process(target=how, args=(config, slow), daemon=True)
    process.start()
    client = Client(config.address)
    while True:
        try:
            client.step()
            break
        except Unavailable:
            time.sleep(0.02)
    client.close()
    try:
        yield config.address
    finally:
        process.terminate()
        process.join()


def p50(call: Callable[[], object], seconds: float = 1.0) -> float:
    """The median time of a call, one after the other for a while."""
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def steps_a_second(address: str, clients: int, seconds: float = 1.5) -> float:
    """How many Steps so many clients, each with a connection, get acknowledged."""
    done = [0] * clients
    over = threading.Event()

    def work(number: int) -> None:
        # Channels to one address share a connection unless they are told apart.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            step = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Step
            while not over.is_set():
                step(pb.StepRequest(request_id=os.urandom(16).hex()))
                done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    before, began = sum(done), time.perf_counter()
    time.sleep(seconds)
    rate = (sum(done) - before) / (time.perf_counter() - began)
    over.set()
    for thread in threads:
        thread.join()
    return rate


def durable_step(folder: Path) -> list[float]:
    """A durable Step over (an fdatasync of as many bytes + a Step in memory)."""
    ratios = []
    file = os.open(folder / "raw", os.O_RDWR | os.O_CREAT)
    with (
        served(folder / "state") as disk,
        served(None) as memory,
        Client(disk) as on_disk,
        Client(memory) as in_memory,
    ):
        size = bytes_a_commit(folder / "other")
        os.pwrite(file, bytes(4 * 2**20), 0)  # as long as the log gets
        os.fsync(file)
        place = 0

        def sync() -> None:
            nonlocal place
            place = (place + size) % (4 * 2**20 - size)
            os.pwrite(file, bytes(size), place)
            os.fdatasync(file)

        for _ in range(PAIRS):
            durable, raw, plain = p50(on_disk.step), p50(sync), p50(in_memory.step)
            ratios.append(durable / (raw + plain))
        print(
            f"  durable {durable * 1e3:.2f} ms, fdatasync of {size:,} bytes {raw * 1e3:.2f} ms,"
            f" in memory {plain * 1e3:.2f} ms"
        )
    os.close(file)
    return ratios


def bytes_a_commit(folder: Path) -> int:
    """What the commit of one Step with an id adds to the write-ahead log."""
    folder.mkdir()
    other, count = state.State(folder), 0
    log = folder / "mnist37.sqlite3-wal"

    def commit() -> None:
        nonlocal count
        count += 1
        step = Snapshot(
            count, np.random.default_rng(count).random(785, np.float32).tobytes(), 0, Origin.STEP
        )
        other.commit([step], [state.Record(os.urandom(16).hex(), b"x" * 32, count, (0.1, count))])

    for _ in range(history.KEPT_VERSIONS + 100):
        commit()
    with sqlite3.connect(folder / "mnist37.sqlite3") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for _ in range(20):
        commit()
    size = log.stat().st_size // 20
    other.close()
    return size


def training(folder: Path) -> list[float]:
    """Epochs a second with the state on disk over those in memory."""
    ratios = []
    with (
        served(folder / "state") as disk,
        served(None) as memory,
        Client(disk) as on_disk,
        Client(memory) as in_memory,
    ):
        for _ in range(PAIRS):
            taken = [client.train(150).wait().elapsed for client in (on_disk, in_memory)]
            ratios.append(taken[1] / taken[0])
    return ratios


def together(folder: Path) -> list[float]:
    """With 5 ms more a sync: the acknowledgements of 16 clients over those of one."""
    ratios = []
    with served(folder / "state", slow=True) as address:
        for _ in range(PAIRS):
            one, many = steps_a_second(address, 1), steps_a_second(address, 16)
            ratios.append(many / one)
        print(f"  one client {one:,.0f} a second, sixteen {many:,.0f}")
    return ratios


def against_nothing(folder: Path) -> list[float]:
    """The acknowledgements of 16 clients over those of a servicer that does nothing."""
    ratios = []
    with served(folder / "state") as address, served(None, how=serve_nothing) as empty:
        for _ in range(PAIRS):
            real, none = steps_a_second(address, 16), steps_a_second(empty, 16)
            ratios.append(real / none)
        print(f"  mnist37 {real:,.0f} a second, the empty servicer {none:,.0f}")
    return ratios


def opening(folder: Path) -> list[float]:
    """Seconds that a state takes longer to open after 100,000 versions than a new one."""
    old = state.State(folder / "old")
    parameters = np.zeros(785, np.float32).tobytes()
    for start in range(0, 100_000, 100):
        made = [Snapshot(start + i, parameters, 0, Origin.STEP) for i in range(100)]
        named = [state.Record(f"id {s.version}", b"x" * 32, s.version, (0.1, 1)) for s in made]
        old.commit(made, named)
    old.close()
    state.State(folder / "new").close()

    def seconds(name: str) -> float:
        began = time.perf_counter()
        opened = state.State(folder / name)
        opened.latest()
        taken = time.perf_counter() - began
        opened.close()
        return taken

    return [seconds("old") - seconds("new") for _ in range(PAIRS)]


MEASUREMENTS = {
    "durable Step / (fdatasync + Step in memory), p50": (durable_step, "at most", 1.3),
    "epochs a second, on disk / in memory": (training, "at least", 0.95),
    "16 clients / 1, with 5 ms more a sync": (together, "at least", 8),
    "16 clients, Steps on disk / an empty servicer": (against_nothing, "at least", 0.5),
    "opening after 100,000 versions, seconds more": (opening, "at most", 0.5),
}


def main() -> None:
    os.sched_setaffinity(0, CORES[-1:])
    results = {}
    for name, (measure, sense, bound) in MEASUREMENTS.items():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
            ratios = measure(Path(temporary))
        median = statistics.median(ratios)
        holds = median <= bound if sense == "at most" else median >= bound
        print(
            f"{name}: {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {sense} {bound}:"
            f" {'holds' if holds else 'DOES NOT HOLD'}",
            flush=True,
        )
        results[name] = {"median": median, "pairs": ratios, "bound": f"{sense} {bound}"}
    about = {"machine": platform.processor() or platform.machine(), "cores": len(CORES)}
    out = Path(__file__).parent / "results" / "commits.json"
    out.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
