"""How near Predict is to grpcio itself, and what streams and merging gain over single calls."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
from mnist37_client import Client, validation_images

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.load import h2load, http2
from benchmarks.processes import LOAD, Server

Target = Callable[[], AbstractContextManager[Server]]  # starts a server

IN_FLIGHT = {1: 64, 64: 64, 1024: 8}  # calls, by images a call: enough to fill the server's core
MESSAGES = 1_000  # of one image each, in a stream's life
STREAMS = 4  # at a time; what each has in flight is up to HTTP/2's windows, 64 kB at first
MERGED = "benchmarks.load.merged_calls"
TOKEN = "of-the-benchmarks-alone"


@contextmanager
def trained(*flags: str, token: str | None = None) -> Iterator[Server]:
    """A server that has learnt for a moment, with further flags; its answers are checked."""
    with (
        processes.mnist37(*flags) as server,
        Client(server.address, token=token) as client,
    ):
        client.train(baselines.EPOCHS).wait()
        check(client)
        yield server
        check(client)


# With nothing on a call's path that can be taken off it: no metrics, no tokens, no limit.
bare = partial(trained, "--max-rpcs", "0")


@contextmanager
def guarded() -> Iterator[Server]:
    """The same with limits and metrics, and with tokens of which each call brings one."""
    with tempfile.NamedTemporaryFile("w") as tokens:
        tokens.write(f"train {hashlib.sha256(TOKEN.encode()).hexdigest()}")
        tokens.flush()
        flags = ("--metrics-address", "127.0.0.1:0", "--tokens", tokens.name)
        with trained(*flags, token=TOKEN) as server:
            yield server


def check(client: Client) -> None:
    """Raises AssertionError unless predictions, streamed too, are what the parameters say."""
    images = validation_images()[0].reshape(-1, 784)
    model = client.get_model()
    scores = images / 255 @ model.weights.astype(np.float64) + model.bias
    for said in (client.predict(images), *client.predict_stream([images])):
        assert said.version == model.version == baselines.VERSION
        np.testing.assert_allclose(said.probabilities, 1 / (1 + np.exp(-scores)), atol=1e-5)


def empty() -> AbstractContextManager[Server]:
    """A servicer that computes nothing."""
    return processes.server("benchmarks.baselines")


def answer(images: int) -> int:
    """How many bytes the body of an answer has."""
    return len(h2load.frame(baselines.predict_answer(images)))


def body(images: int) -> bytes:
    """The body of a call."""
    return h2load.frame(baselines.predict_request(images))


@contextmanager
def throughput(target: Target, images: int, *headers: str) -> Iterator[Measure]:
    """Calls a second of so many images each, with further headers ("name: value")."""
    with target() as server:
        yield h2load.ClosedLoop(
            server.address, "Predict", body(images), answer(images), IN_FLIGHT[images], headers
        )


@contextmanager
def streamed(target: Target) -> Iterator[Measure]:
    """Messages a second, of one image each, over a few streams."""
    with target() as server:
        messages, answers = body(1) * MESSAGES, answer(1) * MESSAGES
        loop = h2load.ClosedLoop(server.address, "PredictStream", messages, answers, STREAMS)
        yield lambda seconds: loop(seconds) * MESSAGES


def p50(address: str) -> Measure:
    """The median latency of a call of one image, one call at a time."""
    calls = http2.Calls(address, "Predict", body(1), answer(1))
    return lambda seconds: statistics.median(calls.one_at_a_time(seconds))


@contextmanager
def latency(target: Target) -> Iterator[Measure]:
    """The same, of a server that is started for it."""
    with target() as server, processes.worker(LOAD, p50, server.address) as measure:
        yield measure


def merged_rate(address: str) -> Measure:
    """Answers a second to 256 callers in this process, who await one image each."""
    rate: Callable[[str, int, float], float] = importlib.import_module(MERGED).rate
    return lambda seconds: rate(address, 256, seconds)


def merged_lone(address: str) -> Measure:
    """What a lone caller waits, over what it waits where nothing is merged."""
    ratio: Callable[[str], float] = importlib.import_module(MERGED).lone_p50_ratio
    return lambda seconds: ratio(address)


@contextmanager
def merged(prepare: Callable[[str], Measure]) -> Iterator[Measure]:
    """One client process on a core of its own."""
    with trained() as server, processes.worker(LOAD, prepare, server.address) as measure:
        yield measure


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    found = [
        Benchmark(
            key=f"predict-{images}",
            name=f"Predict, {images:,} a call: mnist37 / an empty servicer",
            unit="/s",
            aim=Aim("at least", bound),
            a=partial(throughput, bare, images),
            b=partial(throughput, empty, images),
        )
        for images, bound in ((1, 0.90), (64, 0.85), (1024, 0.85))
    ]
    found += [
        Benchmark(
            key="predict-latency",
            name="Predict, p50 of one call at a time: mnist37 / an empty servicer",
            unit="s",
            aim=Aim("at most", 1.10),
            a=partial(latency, bare),
            b=partial(latency, empty),
        ),
        Benchmark(
            key="predict-stream",
            name="single images: PredictStream / Predict",
            unit="/s",
            aim=Aim("at least", 2.2),
            a=partial(streamed, bare),
            b=partial(throughput, bare, 1),
        ),
    ]
    found.append(
        Benchmark(
            key="predict-guarded",
            name="Predict, 1 a call: with metrics, tokens and limits / without",
            unit="calls/s",
            aim=Aim("at least", 0.95),
            a=partial(throughput, guarded, 1, f"authorization: Bearer {TOKEN}"),
            b=partial(throughput, bare, 1),
            rounds=6,  # two servers of one kind differ by as much as is to be told here
        )
    )
    return found + merged_rows()


def merged_rows() -> list[Benchmark]:
    """The benchmarks of the client that merges its callers' images into few messages."""
    if importlib.util.find_spec(MERGED) is None:
        return []
    return [
        Benchmark(
            key="predict-merged",
            name="single images a second to 256 callers who are merged",
            unit="/s",
            aim=Aim("at least", 100_000),
            a=partial(merged, merged_rate),
            figure=Figure.VALUE,
            seconds=1.0,
        ),
        Benchmark(
            key="predict-lone",
            name="p50 of a lone caller: merged / not",
            unit="",
            aim=Aim("at most", 1.05),
            a=partial(merged, merged_lone),
            figure=Figure.VALUE,
        ),
    ]
