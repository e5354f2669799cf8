"""A CUDA device: what an epoch costs there, and that predictions are as fast as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options, Side
from benchmarks.suites.both import p99
from benchmarks.suites.predict import bare, empty, latency, throughput
from benchmarks.suites.training import epoch, in_process

ON_CUDA = ("--device", "cuda")


@contextmanager
def on_cuda_only(side: Side) -> Iterator[Measure]:
    """A side that needs a CUDA device, which is asked for before anything starts."""
    processes.require_cuda()
    with side() as measure:
        yield measure


def eager_epoch(device: str) -> Measure:
    """Seconds for an epoch as chapter 4 has it, in torch's own operations, on a device.

    Without what is slow about the book's for other reasons: the images are there in the order of
    the run, a mini-batch is a slice of them, and the loss is not fetched.
    """
    import torch

    from mnist37 import data
    from mnist37.model import init_params, linear1, mnist_loss
    from mnist37.shuffling import permutation

    images = data.load()
    order = torch.from_numpy(permutation(len(images.train_x), 42))
    x, y = (part[order].to(device) for part in (images.train_x, images.train_y))
    batches = list(zip(x.split(256), y.split(256), strict=True))
    parameters = [init_params(shape).detach().to(device) for shape in ((784, 1), 1)]
    weights, bias = (parameter.requires_grad_() for parameter in parameters)

    def run() -> None:
        for xb, yb in batches:
            loss = mnist_loss(linear1(xb, weights, bias).sigmoid(), yb)
            torch.autograd.backward(loss)
            for parameter in (weights, bias):
                assert parameter.grad is not None
                parameter.data -= parameter.grad * 1.0
                parameter.grad = None
        weights[0].item()  # waits until all is done

    return baselines.measure_call(run)


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    an_epoch = in_process(epoch, False, "cuda")
    on_cuda = partial(bare, *ON_CUDA)
    found = [
        Benchmark(
            key="device-eager",
            name="on a CUDA device: autograd's eager epoch / an epoch",
            unit="s",
            aim=Aim("at least", 30),
            a=in_process(eager_epoch, "cuda"),
            b=an_epoch,
        ),
        Benchmark(
            key="device-epoch",
            name="an epoch on a CUDA device",
            unit="s",
            aim=Aim("at most", 0.4e-3),
            a=an_epoch,
            figure=Figure.VALUE,
        ),
        Benchmark(
            key="device-latency",
            name="Predict, p50 of one call at a time: on CUDA / an empty servicer",
            unit="s",
            aim=Aim("at most", 1.25),
            a=partial(latency, on_cuda),
            b=partial(latency, empty),
        ),
        Benchmark(
            key="device-1024",
            name="Predict, 1,024 a call: on CUDA / an empty servicer",
            unit="/s",
            aim=Aim("at least", 0.85),
            a=partial(throughput, on_cuda, 1024),
            b=partial(throughput, empty, 1024),
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
    return [replace(row, a=partial(on_cuda_only, row.a)) for row in found]
