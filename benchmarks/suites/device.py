"""A CUDA device: the cost of an epoch, and whether predictions are as fast as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options, Side
from benchmarks.suites.both import p99
from benchmarks.suites.predict import empty_server, latency, plain_server, throughput
from benchmarks.suites.training import in_process, measure_epoch

ON_CUDA = ("--device", "cuda")


@contextmanager
def with_cuda(side: Side) -> Iterator[Measure]:
    """Start a side that needs a CUDA device.

    Raises:
        MissingRequirement: there is no CUDA device; the side was not started.
    """
    processes.require_cuda()
    with side() as measure:
        yield measure


def measure_eager_epoch(device: str) -> Measure:
    """Return a measurement of the seconds of an epoch on a device, in torch's eager operations.

    The epoch is that of the book's chapter 4, without its other costs: the images are on the device
    in the order of the run, a mini-batch is a slice of them, and the loss stays on the device. The
    checks in mnist37.model would wait for the device, so the formulas stand here without them.
    """
    import torch

    from mnist37 import data
    from mnist37.model import init_params
    from mnist37.shuffling import permutation

    images = data.load()
    order = torch.from_numpy(permutation(len(images.train_x), 42))
    x, y = (part[order].to(device) for part in (images.train_x, images.train_y))
    batches = list(zip(x.split(256), y.split(256), strict=True))
    parameters = [init_params(shape).detach().to(device) for shape in ((784, 1), 1)]
    weights, bias = (parameter.requires_grad_() for parameter in parameters)

    def run() -> None:
        for xb, yb in batches:
            predictions = (xb @ weights + bias).sigmoid()
            loss = torch.where(yb == 1, 1 - predictions, predictions).mean()
            torch.autograd.backward(loss)
            for parameter in (weights, bias):
                assert parameter.grad is not None
                parameter.data -= parameter.grad * 1.0
                parameter.grad = None
        weights[0].item()  # waits for the device

    return baselines.measure_call(run)


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    epoch = in_process(measure_epoch, False, "cuda")
    cuda_server = partial(plain_server, *ON_CUDA)
    benchmarks = [
        Benchmark(
            key="device-eager",
            name="on a CUDA device: autograd's eager epoch / an epoch",
            unit="s",
            aim=Aim("at least", 30),
            a=in_process(measure_eager_epoch, "cuda"),
            b=epoch,
        ),
        Benchmark(
            key="device-epoch",
            name="an epoch on a CUDA device",
            unit="s",
            aim=Aim("at most", 0.4e-3),
            a=epoch,
            figure=Figure.VALUE,
        ),
        Benchmark(
            key="device-latency",
            name="Predict, p50 of one call at a time: on CUDA / an empty servicer",
            unit="s",
            aim=Aim("at most", 1.25),
            a=partial(latency, cuda_server),
            b=partial(latency, empty_server),
        ),
        Benchmark(
            key="device-1024",
            name="Predict, 1,024 a call: on CUDA / an empty servicer",
            unit="/s",
            aim=Aim("at least", 0.85),
            a=partial(throughput, cuda_server, 1024),
            b=partial(throughput, empty_server, 1024),
        ),
        Benchmark(
            key="device-training",
            name="Predict, p99 of one call at a time: while CUDA trains / idle",
            unit="s",
            aim=Aim("at most", 1.5),
            a=partial(p99, *ON_CUDA, while_training=True, loaded=False),
            b=partial(p99, *ON_CUDA, while_training=False, loaded=False),
            seconds=0.5,
        ),
    ]
    return [replace(row, a=partial(with_cuda, row.a)) for row in benchmarks]
