"""Predictions over HTTP compared with Predict from the same server; all on two cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import orjson
from mnist37_client import validation_images

from benchmarks import processes
from benchmarks.harness import Aim, Benchmark, Measure, Options
from benchmarks.load import h2load
from benchmarks.processes import BOTH
from benchmarks.suites.predict import answer_bytes, request_body, trained_server

IN_FLIGHT = 32
PATH = "/v2/models/mnist37/infer"


def infer_body(images: int) -> bytes:
    """Return the JSON of a request for so many images."""
    pixels = validation_images()[0][:images].reshape(-1).tolist()
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [images, 784], "data": pixels}
    return orjson.dumps({"inputs": [tensor]})


@contextmanager
def by_rest(images: int) -> Iterator[Measure]:
    """Start a server and a web of it; yield a measurement of REST's requests a second."""
    processes.require_two_cores()
    with (
        trained_server(cores=BOTH) as server,
        processes.server(
            "mnist37_web",
            *("--server", server.address, "--address", "127.0.0.1:0"),
            cores=BOTH,
        ) as web,
    ):
        # Around its numbers an answer has 121 bytes.
        loop = h2load.KeptConnections(web.address + PATH, infer_body(images), 121, IN_FLIGHT)
        yield on_both_cores(loop)


@contextmanager
def by_grpc(images: int) -> Iterator[Measure]:
    """Start a server on two cores and yield a measurement of Predict's calls a second."""
    processes.require_two_cores()
    with trained_server(cores=BOTH) as server:
        body, minimum = request_body(images), answer_bytes(images)
        loop = h2load.ClosedLoop(server.address, "Predict", body, minimum, IN_FLIGHT)
        yield on_both_cores(loop)


def on_both_cores(measure: Measure) -> Measure:
    """Return a measurement whose load is not kept to one core, as on a machine without pinning."""

    def measure_on_both(seconds: float) -> float:
        with processes.pinned_to(BOTH):
            return measure(seconds)

    return measure_on_both


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    return [
        Benchmark(
            key=key,
            name=f"{images:,} a request, {IN_FLIGHT} in flight: REST, JSON / Predict",
            unit="/s",
            aim=Aim("at least", bound),
            a=partial(by_rest, images),
            b=partial(by_grpc, images),
        )
        for key, images, bound in (("rest-1", 1, 0.7), ("rest-64-json", 64, 0.1))
    ]
