"""What an epoch costs: against reading the images once, the book, scikit-learn, and over RPC."""

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

TARGET_ACCURACY = 0.97  # of the validation images


def trainer(*, validation: bool, device: str = "cpu") -> Trainer:
    """What the server trains with.

    Args:
        validation: with the whole validation set; else with one image of it, which costs nothing
            (on CUDA a launch).
        device: where.
    """
    from mnist37_server.domain.commands import Initialize
    from mnist37_server.training.device import find_device
    from mnist37_server.training.trainer import Trainer

    from mnist37 import data
    from mnist37.training import Datasets

    images = data.load()
    if not validation:
        one = replace(images.valid, pixels=images.valid.pixels[:1], labels=images.valid.labels[:1])
        images = replace(images, valid=one)
    place = find_device(device)
    made = Trainer(Datasets(images, place), place)
    made.initialize(Initialize())
    return made


def endless_run(trainer: Trainer) -> Iterator[list[Progress]]:
    """A run without end, as the server's writer does it, without its commits: some epochs each."""
    from mnist37_server.domain.commands import Train
    from mnist37_server.domain.records import RunCheckpoint

    place = RunCheckpoint(steps=0, loss=0, elapsed=0.0, run=1, started_at=time.time())
    return (ended.progress for ended in trainer.run(Train(epochs=1_000_000), place).slices())


def epoch(validation: bool, device: str = "cpu") -> Measure:
    """Seconds an epoch in this process, shuffled, its training loss included."""
    run = endless_run(trainer(validation=validation, device=device))
    next(run)  # on CUDA it compiles first

    def measure(seconds: float) -> float:
        epochs, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds or not epochs:
            epochs += len(next(run))
        return taken / epochs

    return measure


def losses() -> Measure:
    """How far five epochs' training losses are from autograd's, relatively, at the most.

    Autograd's is mnist37.model as the lesson writes it, in float32, over the same mini-batches.
    """
    import torch

    from mnist37 import data
    from mnist37.model import linear1, mnist_loss
    from mnist37.shuffling import permutation

    made = trainer(validation=False)
    parameters = torch.from_numpy(made.device.fetch(made.parameters))
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
            slopes = torch.autograd.grad(loss, [weights, bias])
            weights.detach_().sub_(slopes[0])
            bias.detach_().sub_(slopes[1])
        return total / len(images.train_x)

    def measure(seconds: float) -> float:
        return max(
            abs(found.train_loss / autograd_epoch(found.epoch) - 1)
            for found in itertools.islice(itertools.chain.from_iterable(endless_run(made)), 5)
        )

    return measure


def run_over_rpc(address: str) -> Measure:
    """Seconds an epoch over RPC, with the progress of each; from the call to its end."""
    client = Client(address)
    epochs = 20

    def measure(seconds: float) -> float:
        nonlocal epochs
        began = time.perf_counter()
        client.train(epochs).wait()
        taken = time.perf_counter() - began
        found, epochs = taken / epochs, max(1, round(seconds * epochs / taken))
        return found

    return measure


def from_scratch(address: str) -> Measure:
    """Seconds from Initialize until the client hears of GOOD accuracy, all settings the default."""
    client = Client(address)

    def measure(seconds: float) -> float:
        client.initialize()  # waits until the run before this one has stopped
        began = time.perf_counter()
        client.initialize()
        with client.train(100) as run:
            next(found for found in run if found.valid_accuracy >= TARGET_ACCURACY)
            return time.perf_counter() - began

    return measure


def in_process(prepare: Callable[..., Measure], *arguments: object) -> Side:
    """A measurement in a fresh process on one core."""
    return partial(processes.worker, SERVER, prepare, *arguments)


@contextmanager
def over_rpc(
    prepare: Callable[[str], Measure], on_disk: Options | None = None
) -> Iterator[Measure]:
    """A measurement by a client, on two cores that it shares with the server, as on a laptop.

    Args:
        prepare: is given the address.
        on_disk: where the state is kept; else in memory.
    """
    with ExitStack() as stack:
        state = ":memory:"
        if on_disk is not None:
            state = str(stack.enter_context(processes.temporary_folder(on_disk.disk)))
        server = stack.enter_context(processes.mnist37(state=state, cores=BOTH))
        yield stack.enter_context(processes.worker(BOTH, prepare, server.address))


def rows(options: Options) -> list[Benchmark]:
    """The benchmarks of this theme."""
    training_alone = in_process(epoch, False)
    return [
        Benchmark(
            key="training-losses",
            name="training losses, how far from autograd's, relatively",
            unit="",
            aim=Aim("at most", 1e-6),
            a=in_process(losses),
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
            a=partial(over_rpc, run_over_rpc),
            b=in_process(epoch, True),
        ),
        Benchmark(
            key="training-scratch",
            name=f"from Initialize to {TARGET_ACCURACY} accuracy, state on disk",
            unit="s",
            aim=Aim("at most", 0.15),
            a=partial(over_rpc, from_scratch, options),
            figure=Figure.VALUE,
        ),
    ]
