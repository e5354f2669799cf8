"""The cost of an epoch, compared with one read of the images, the book and scikit-learn.

Also the cost of an epoch over RPC.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mnist37_client import Client

from benchmarks import baselines, processes
from benchmarks.harness import Aim, Benchmark, Figure, Measure, Options, Side
from benchmarks.processes import BOTH, SERVER

if TYPE_CHECKING:
    from mnist37_server.domain.results import Progress
    from mnist37_server.training.trainer import Trainer

TARGET_ACCURACY = 0.97  # on the validation images


def make_trainer(*, validation: bool, device: str = "cpu") -> Trainer:
    """Make the server's trainer, with parameters initialized from the default seed.

    Args:
        validation: validate on the whole validation set; otherwise on one image of it, which costs
            nothing on the CPU, and one kernel launch on CUDA.
        device: the device's name.
    """
    from mnist37_server.domain.commands.commands import Initialize
    from mnist37_server.training.device import find_device
    from mnist37_server.training.trainer import Trainer

    from mnist37 import data
    from mnist37.training import Datasets

    images = data.load()
    if not validation:
        one = replace(images.valid, pixels=images.valid.pixels[:1], labels=images.valid.labels[:1])
        images = replace(images, valid=one)
    compute_device = find_device(device)
    trainer = Trainer(Datasets(images, compute_device), compute_device)
    trainer.initialize(Initialize())
    return trainer


def train_endlessly(trainer: Trainer) -> Iterator[list[Progress]]:
    """Train as the server's writer does, without commits, and yield the epochs of each slice."""
    from mnist37_server.domain.commands.train import Train
    from mnist37_server.domain.records import RunCheckpoint
    from mnist37_server.training.run import Run

    checkpoint = RunCheckpoint(steps=0, loss=0, elapsed=0.0, run=1, started_at=time.time())
    training_run = Run(trainer, Train(epochs=1_000_000), checkpoint)
    return (result.progress for result in training_run.slices())


def measure_epoch(validation: bool, device: str = "cpu") -> Measure:
    """Return a measurement of the seconds an epoch takes in this process.

    The mini-batches are shuffled, and the training loss is computed.
    """
    run = train_endlessly(make_trainer(validation=validation, device=device))
    next(run)  # on CUDA the first slice compiles the kernels

    def measure(seconds: float) -> float:
        epochs, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or not epochs:
            epochs += len(next(run))
        return elapsed / epochs

    return measure


def measure_loss_error() -> Measure:
    """Return a measurement of the largest relative error of five epochs' training losses.

    The reference is autograd on mnist37.model, as the lesson writes it, in float32 and on the same
    mini-batches.
    """
    import torch

    from mnist37 import data
    from mnist37.model import linear1, mnist_loss
    from mnist37.shuffling import permutation

    trainer = make_trainer(validation=False)
    parameters = torch.from_numpy(trainer.device.fetch(trainer.parameters))
    weights, bias = parameters[:-1].view(784, 1).clone(), parameters[-1:].clone()
    images = data.load()

    def autograd_epoch(number: int) -> float:
        total = 0.0
        batches = torch.from_numpy(permutation(len(images.train_x), 42)).split(256)
        for index in permutation(len(batches), 42, 256, number):
            batch = batches[index]
            weights.requires_grad_()
            bias.requires_grad_()
            scores = linear1(images.train_x[batch], weights, bias)
            loss = mnist_loss(torch.sigmoid(scores), images.train_y[batch])
            total += loss.item() * len(batch)
            gradients = torch.autograd.grad(loss, [weights, bias])
            weights.detach_().sub_(gradients[0])
            bias.detach_().sub_(gradients[1])
        return total / len(images.train_x)

    def measure(seconds: float) -> float:
        epochs = itertools.chain.from_iterable(train_endlessly(trainer))
        return max(
            abs(progress.train_loss / autograd_epoch(progress.epoch) - 1)
            for progress in itertools.islice(epochs, 5)
        )

    return measure


def measure_rpc_epoch(address: str) -> Measure:
    """Return a measurement of the seconds of an epoch over RPC, with validation and progress.

    The time counts from the start of the call to its end.
    """
    client = Client(address)
    epochs = 20

    def measure(seconds: float) -> float:
        nonlocal epochs
        start = time.perf_counter()
        client.train(epochs).wait()
        elapsed = time.perf_counter() - start
        result, epochs = elapsed / epochs, max(1, round(seconds * epochs / elapsed))
        return result

    return measure


def measure_from_scratch(address: str) -> Measure:
    """Return a measurement of the seconds from Initialize to a progress of TARGET_ACCURACY.

    All settings are the defaults.
    """
    client = Client(address)

    def measure(seconds: float) -> float:
        client.initialize()  # waits until the previous run has stopped
        start = time.perf_counter()
        client.initialize()
        with client.train(100) as run:
            next(progress for progress in run if progress.valid_accuracy >= TARGET_ACCURACY)
            return time.perf_counter() - start

    return measure


def in_process(prepare: Callable[..., Measure], *arguments: object) -> Side:
    """Return a side that measures in a fresh process on one core."""
    return partial(processes.worker, SERVER, prepare, *arguments)


@contextmanager
def over_rpc(
    prepare: Callable[[str], Measure], on_disk: Options | None = None
) -> Iterator[Measure]:
    """Start a server and a client process that measures it; both share two cores, as on a laptop.

    Args:
        prepare: makes the measurement from the server's address.
        on_disk: the options that name the disk of the state folder; None keeps the state in memory.
    """
    with ExitStack() as stack:
        state = ":memory:"
        if on_disk is not None:
            state = str(stack.enter_context(processes.temporary_folder(on_disk.disk)))
        server = stack.enter_context(processes.mnist37(state=state, cores=BOTH))
        yield stack.enter_context(processes.worker(BOTH, prepare, server.address))


def rows(options: Options) -> list[Benchmark]:
    """Return the benchmarks of this theme."""
    training_alone = in_process(measure_epoch, False)
    return [
        Benchmark(
            key="training-losses",
            name="training losses, how far from autograd's, relatively",
            unit="",
            aim=Aim("at most", 1e-6),
            a=in_process(measure_loss_error),
            figure=Figure.VALUE,
            pairs=1,
            rounds=1,
        ),
        Benchmark(
            key="training-read",
            name="an epoch / a read of its images as float32",
            unit="s",
            aim=Aim("at most", 1.9),
            a=training_alone,
            b=in_process(baselines.memory_read),
        ),
        Benchmark(
            key="training-book",
            name="the book's epoch / an epoch",
            unit="s",
            aim=Aim("at least", 14),
            a=in_process(baselines.book_epoch),
            b=training_alone,
        ),
        Benchmark(
            key="training-sklearn",
            name="scikit-learn's pass / an epoch",
            unit="s",
            aim=Aim("at least", 10),
            a=in_process(baselines.sklearn_pass),
            b=training_alone,
        ),
        Benchmark(
            key="training-rpc",
            name="an epoch with validation: over RPC / in process",
            unit="s",
            aim=Aim("at most", 1.10),
            a=partial(over_rpc, measure_rpc_epoch),
            b=in_process(measure_epoch, True),
        ),
        Benchmark(
            key="training-scratch",
            name=f"from Initialize to {TARGET_ACCURACY} accuracy, state on disk",
            unit="s",
            aim=Aim("at most", 0.15),
            a=partial(over_rpc, measure_from_scratch, options),
            figure=Figure.VALUE,
        ),
    ]
