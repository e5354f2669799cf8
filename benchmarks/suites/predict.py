"""Predict compared with grpcio alone, and the gain of streams and merging over single calls."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
from mnist37_client import Client, validation_images

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options
from benchmarks.load import h2load, http2
from benchmarks.processes import LOAD, SERVER, Server

Target = Callable[[], AbstractContextManager[Server]]  # starts a server

IN_FLIGHT = {1: 64, 64: 64, 1024: 8}  # calls, by images a call: enough to fill the server's core
MESSAGES = 1_000  # in one stream, of one image each
STREAMS = 4  # at a time; HTTP/2's windows, 64 kB at first, limit what each has in flight
MERGED = "benchmarks.load.merged_calls"
TOKEN = "of-the-benchmarks-alone"


@contextmanager
def trained_server(
    *flags: str, token: str | None = None, cores: Set[int] = SERVER
) -> Iterator[Server]:
    """Start a server, train it briefly, and check its predictions before and after the context.

    Args:
        flags: further flags of `mnist37 serve`.
        token: the client's access token, if the server requires one.
        cores: the cores that the server is pinned to.
    """
    with (
        processes.mnist37(*flags, cores=cores) as server,
        Client(server.address, token=token) as client,
    ):
        client.train(baselines.EPOCHS).wait()
        check_predictions(client)
        yield server
        check_predictions(client)


# A server with nothing optional on a call's path: no metrics, no tokens, no limit.
plain_server = partial(trained_server, "--max-rpcs", "0")


@contextmanager
def guarded_server() -> Iterator[Server]:
    """Start a trained server with limits and metrics that requires a token in each call."""
    with tempfile.NamedTemporaryFile("w") as tokens:
        tokens.write(f"train {hashlib.sha256(TOKEN.encode()).hexdigest()}")
        tokens.flush()
        flags = ("--metrics-address", "127.0.0.1:0", "--tokens", tokens.name)
        with trained_server(*flags, token=TOKEN) as server:
            yield server


def check_predictions(client: Client) -> None:
    """Raise AssertionError unless Predict and PredictStream agree with the model's parameters."""
    images = validation_images()[0].reshape(-1, 784)
    model = client.get_model()
    scores = images / 255 @ model.weights.astype(np.float64) + model.bias
    for prediction in (client.predict(images), *client.predict_stream([images])):
        assert prediction.version == model.version == baselines.VERSION
        np.testing.assert_allclose(prediction.probabilities, 1 / (1 + np.exp(-scores)), atol=1e-5)


def empty_server() -> AbstractContextManager[Server]:
    """Start a server whose methods compute nothing."""
    return processes.server("benchmarks.baselines")


def answer_bytes(images: int) -> int:
    """Return the size of a response's body in bytes, for a call of so many images."""
    return len(h2load.frame(baselines.predict_answer(images)))


def request_body(images: int) -> bytes:
    """Return the body of a call of so many images."""
    return h2load.frame(baselines.predict_request(images))


@contextmanager
def throughput(
    target: Target, images: int, *headers: str, connections: int = 1
) -> Iterator[Measure]:
    """Start a server and yield a measurement of Predict's calls a second.

    Args:
        target: starts the server.
        images: the number of images in each call.
        headers: further headers, as "name: value".
        connections: which share the calls in flight.
    """
    with target() as server:
        yield h2load.ClosedLoop(
            server.address,
            "Predict",
            request_body(images),
            answer_bytes(images),
            IN_FLIGHT[images],
            headers,
            connections,
        )


@contextmanager
def stream_throughput(target: Target) -> Iterator[Measure]:
    """Start a server and yield a measurement of PredictStream's messages a second.

    Each message has one image. There are `STREAMS` streams at a time.
    """
    with target() as server:
        body, minimum = request_body(1) * MESSAGES, answer_bytes(1) * MESSAGES
        loop = h2load.ClosedLoop(server.address, "PredictStream", body, minimum, STREAMS)
        yield lambda seconds: loop(seconds) * MESSAGES


def measure_p50(address: str) -> Measure:
    """Return a measurement of Predict's median latency in seconds, with one image a call.

    There is one call at a time.
    """
    calls = http2.Calls(address, "Predict", request_body(1), answer_bytes(1))
    return lambda seconds: statistics.median(calls.one_at_a_time(seconds))


@contextmanager
def latency(target: Target) -> Iterator[Measure]:
    """Start a server and yield a measurement of Predict's median latency in seconds."""
    with target() as server, processes.worker(LOAD, measure_p50, server.address) as measure:
        yield measure


def measure_merged_rate(address: str) -> Measure:
    """Return a measurement of the responses a second to 256 callers in this process.

    Each caller awaits one image; the client merges them.
    """
    rate: Callable[[str, int, float], float] = importlib.import_module(MERGED).rate
    return lambda seconds: rate(address, 256, seconds)


def measure_lone_ratio(address: str) -> Measure:
    """Return a measurement of a lone caller's p50 with merging over its p50 without."""
    ratio: Callable[[str], float] = importlib.import_module(MERGED).lone_p50_ratio
    return lambda seconds: ratio(address)


@contextmanager
def merging_client(prepare: Callable[[str], Measure]) -> Iterator[Measure]:
    """Start a server, and a client process on its own core that measures it."""
    with trained_server() as server, processes.worker(LOAD, prepare, server.address) as measure:
        yield measure


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    benchmarks = [
        Benchmark(
            key=f"predict-{images}",
            name=f"Predict, {images:,} a call: mnist37 / an empty servicer",
            unit="/s",
            aim=Aim("at least", bound),
            a=partial(throughput, plain_server, images),
            b=partial(throughput, empty_server, images),
        )
        for images, bound in ((1, 0.90), (64, 0.85), (1024, 0.85))
    ]
    benchmarks += [
        Benchmark(
            key="predict-latency",
            name="Predict, p50 of one call at a time: mnist37 / an empty servicer",
            unit="s",
            aim=Aim("at most", 1.10),
            a=partial(latency, plain_server),
            b=partial(latency, empty_server),
        ),
        Benchmark(
            key="predict-stream",
            name="single images: PredictStream / Predict",
            unit="/s",
            aim=Aim("at least", 2.2),
            a=partial(stream_throughput, plain_server),
            b=partial(throughput, plain_server, 1),
        ),
    ]
    benchmarks.append(
        Benchmark(
            key="predict-guarded",
            name="Predict, 1 a call: with metrics, tokens and limits / without",
            unit="calls/s",
            aim=Aim("at least", 0.95),
            a=partial(throughput, guarded_server, 1, f"authorization: Bearer {TOKEN}"),
            b=partial(throughput, plain_server, 1),
            rounds=6,  # two servers of one kind differ by as much as the effect that is measured
        )
    )
    return benchmarks + merged_rows()


def merged_rows() -> list[Benchmark]:
    """Return the benchmarks of the client that merges its callers' images into few messages."""
    if importlib.util.find_spec(MERGED) is None:
        return []
    return [
        Benchmark(
            key="predict-merged",
            name="single images a second to 256 callers who are merged",
            unit="/s",
            aim=Aim("at least", 100_000),
            a=partial(merging_client, measure_merged_rate),
            figure=Figure.VALUE,
            seconds=1.0,
        ),
        Benchmark(
            key="predict-lone",
            name="p50 of a lone caller: merged / not",
            unit="",
            aim=Aim("at most", 1.05),
            a=partial(merging_client, measure_lone_ratio),
            figure=Figure.VALUE,
        ),
    ]
