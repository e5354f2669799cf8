"""Predict at a native front compared with an empty servicer of grpcio; one core each."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path

from mnist37_client import Client, Unavailable, health

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Measure, MissingRequirement, Options
from benchmarks.load import h2load
from benchmarks.processes import BOTH, LOAD, SERVER, Server, Worker
from benchmarks.suites.both import (
    LOAD_SHARE,
    measure_during,
    measure_epoch_rate,
    measure_predict_p99,
)
from benchmarks.suites.predict import (
    IN_FLIGHT,
    TOKEN,
    answer_bytes,
    check_predictions,
    empty_server,
    latency,
    request_body,
    throughput,
    trained_server,
)

FRONT = "mnist37_front"
READY_SECONDS = 60.0


def require_front() -> None:
    """Raise MissingRequirement where a front cannot run."""
    try:
        from mnist37_front.envoy.process import environment, module_path
        from mnist37_server.errors import CannotStart
    except ImportError:
        raise MissingRequirement("needs the extra front") from None
    try:
        module_path()
        environment()
    except CannotStart as error:
        raise MissingRequirement(str(error)) from None


@contextmanager
def front_of(owner: Server, *flags: str, cores: Set[int] = SERVER) -> Iterator[Server]:
    """Start a front of a server, with further flags; it has a version when the context begins."""
    options = ("--owner", owner.address, "--address", "127.0.0.1:0", *flags)
    with processes.server(FRONT, *options, cores=cores) as front:
        wait_until_serving(front.address)
        yield front


@contextmanager
def fronted(
    *flags: str, owner_flags: tuple[str, ...] = (), token: str | None = None
) -> Iterator[Server]:
    """Start a trained server, and a front of it on a core where the server does nothing.

    Its predictions are checked before and after the context.

    Args:
        flags: further flags of the front.
        owner_flags: further flags of the server.
        token: the client's access token, if they require one.
    """
    require_front()
    processes.require_two_cores()
    with (
        trained_server(*owner_flags, token=token, cores=LOAD) as owner,
        front_of(owner, *flags) as front,
        Client(front.address, token=token) as client,
    ):
        check_predictions(client)
        yield front
        check_predictions(client)


@contextmanager
def guarded() -> Iterator[Server]:
    """Start a front with metrics that requires a token in each call."""
    with tempfile.TemporaryDirectory() as name:
        tokens, token = Path(name, "tokens"), Path(name, "token")
        tokens.write_text(f"train {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
        token.write_text(TOKEN)
        flags = ("--tokens", str(tokens))
        own = ("--owner-token-file", str(token), "--metrics-address", "127.0.0.1:0")
        with fronted(*flags, *own, owner_flags=flags, token=TOKEN) as front:
            yield front


def wait_until_serving(address: str) -> None:
    """Wait until a front has the first version.

    Raises:
        Unavailable: it has none in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            health.check(address)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@cache
def peak_rate() -> float:
    """Measure the calls a second of a saturated front that shares two cores with h2load."""
    with (
        processes.mnist37(cores=BOTH) as owner,
        front_of(owner, cores=BOTH) as front,
        processes.pinned_to(BOTH),
    ):
        body, minimum = request_body(1), answer_bytes(1) - 3
        loop = h2load.ClosedLoop(front.address, "Predict", body, minimum, IN_FLIGHT[1])
        loop(0.5)
        return loop(1.0)


def measure_nothing() -> Measure:
    """Return a measurement that only keeps a core busy."""

    def spin(seconds: float) -> float:
        end_time = time.perf_counter() + seconds
        while time.perf_counter() < end_time:
            pass
        return 0.0

    return spin


def neighbour_of(owner: Server, training: bool) -> AbstractContextManager[Worker]:
    """Start a process that keeps a core busy: by training the owner's model, or by itself."""
    if training:
        return processes.worker(BOTH, measure_epoch_rate, owner.address)
    return processes.worker(BOTH, measure_nothing)


@contextmanager
def p99_beside(*, training: bool) -> Iterator[Measure]:
    """Start a front on two cores, and yield a measurement of Predict's p99 in seconds.

    Args:
        training: measure while the owner trains, and not while another process is busy.
    """
    require_front()
    processes.require_two_cores()
    with (
        processes.mnist37(cores=BOTH) as owner,
        front_of(owner, cores=BOTH) as front,
        processes.worker(
            BOTH, measure_predict_p99, front.address, LOAD_SHARE * peak_rate()
        ) as predictor,
        neighbour_of(owner, training) as neighbour,
    ):
        yield partial(measure_during, neighbour, predictor)


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    benchmarks = [
        Benchmark(
            key=key,
            name=f"Predict, {images:,} a call{text}: a front / an empty servicer",
            unit="/s",
            aim=Aim("at least", bound),
            a=partial(throughput, fronted, images, connections=connections),
            b=partial(throughput, empty_server, images, connections=connections),
        )
        for key, images, connections, text, bound in (
            ("front-1", 1, 1, "", 2.5),
            ("front-64", 64, 1, "", 1.5),
            ("front-1024", 1024, 1, "", 1.0),
            ("front-4x16", 1, 4, ", 4 connections", 2.5),
        )
    ]
    return [
        *benchmarks,
        Benchmark(
            key="front-training",
            name=f"a front's p99 at {LOAD_SHARE:.0%} of peak load: owner training / a busy process",
            unit="s",
            aim=Aim("at most", 1.2),
            a=partial(p99_beside, training=True),
            b=partial(p99_beside, training=False),
            seconds=1.5,
        ),
        Benchmark(
            key="front-latency",
            name="Predict, p50 of one call at a time: a front / an empty servicer",
            unit="s",
            aim=Aim("at most", 1.25),
            a=partial(latency, fronted),
            b=partial(latency, empty_server),
        ),
        Benchmark(
            key="front-guarded",
            name="Predict, 1 a call, at a front: with metrics and tokens / without",
            unit="calls/s",
            aim=Aim("at least", 0.9),
            a=partial(throughput, guarded, 1, f"authorization: Bearer {TOKEN}"),
            b=partial(throughput, fronted, 1),
            rounds=6,  # two fronts of one kind differ by as much as the effect that is measured
        ),
    ]
