"""What the service is compared with: nothing but grpcio, a plain read, the book, scikit-learn.

    python -m benchmarks.baselines    runs the empty servicer, until SIGTERM

torch is imported where it is used: those who only start processes do without.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from mnist37_client import validation_images
from mnist37_protos.v1 import mnist37_pb2 as pb

from benchmarks.harness import Measure, MissingRequirement

EPOCHS = 20  # that a server is trained before it is asked: 20 x 49 mini-batches
VERSION = 980


def predict_request(images: int) -> bytes:
    """A PredictRequest with the first images of the validation set."""
    pixels = validation_images()[0][:images].tobytes()
    return pb.PredictRequest(pixels=pixels).SerializeToString()


def predict_answer(images: int) -> bytes:
    """As many bytes as a trained server's answer has."""
    return pb.PredictResponse(probabilities=[0.5] * images, version=VERSION).SerializeToString()


def serve_nothing() -> None:
    """A servicer with mnist37's methods and options, as many threads, and ready-made answers.

    It is registered as the generated code does it, on Python's own executor as grpcio's examples
    have it, but neither parses nor serializes nor counts who is there.
    """
    from mnist37_server.config import Config
    from mnist37_server.rpc.server import options
    from mnist37_server.rpc.thread_pools import SHORT_CALL_THREADS
    from mnist37_server.services.mnist37_service import SHORT

    config = Config()

    step = pb.StepResponse(loss=0.123456789, version=VERSION).SerializeToString()
    probabilities = {len(predict_request(n)): predict_answer(n) for n in (1, 64, 1024)}

    def predicted(request: bytes, context: grpc.ServicerContext) -> bytes:
        return probabilities[len(request)]

    def stepped(request: bytes, context: grpc.ServicerContext) -> bytes:
        return step

    methods = {"Predict": predicted, "Step": stepped}
    long_calls = ThreadPoolExecutor(config.max_rpcs)
    for name, method in methods.items():
        if name not in SHORT:
            method.experimental_thread_pool = long_calls  # type: ignore[attr-defined]
    server = grpc.server(ThreadPoolExecutor(SHORT_CALL_THREADS), options=options(config))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.unary_unary_rpc_method_handler(m) for name, m in methods.items()
    }
    service = "mnist37.v1.Mnist37Service"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_registered_method_handlers(service, handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    stop.wait()


def measure_call(work: Callable[[], object]) -> Measure:
    """Measures seconds a call, by calling again and again."""

    def measure(seconds: float) -> float:
        count, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds or not count:
            work()
            count += 1
        return taken / count

    return measure


def memory_read() -> Measure:
    """Seconds for one read of the training images as 12,396 x 785 float32, by one thread.

    The 785th of each is the 1 that the bias is multiplied by. Of three ways to read each number
    once, the one that is the fastest on this machine.
    """
    import torch

    from mnist37 import data

    torch.set_num_threads(1)
    x = data.load().train_x
    images = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    flat = images.view(-1)
    vector = torch.ones(images.shape[1])
    ways: list[Callable[[], object]] = [
        images.sum,
        lambda: torch.dot(flat, flat),
        lambda: torch.mv(images, vector),
    ]

    def taken(way: Callable[[], object]) -> float:
        return statistics.median(measure_call(way)(0) for _ in range(7))

    return measure_call(min(ways, key=taken))


def book_epoch() -> Measure:
    """Seconds for an epoch as chapter 4 trains it: a DataLoader, autograd, an update, no shuffling.

    Shuffling would make it slower.
    """
    import torch
    from torch.utils.data import DataLoader

    from mnist37 import data
    from mnist37.model import init_params, linear1, mnist_loss

    torch.set_num_threads(1)
    torch.manual_seed(42)
    dset: Any = data.load().dset
    loader: DataLoader[Any] = DataLoader(dset, batch_size=256)
    weights, bias = init_params((784, 1)), init_params(1)

    def epoch() -> None:
        for xb, yb in loader:
            loss = mnist_loss(linear1(xb, weights, bias).sigmoid(), yb)
            loss.backward()
            for parameter in (weights, bias):
                assert parameter.grad is not None
                parameter.data -= parameter.grad * 1.0
                parameter.grad.zero_()

    return measure_call(epoch)


def sklearn_pass() -> Measure:
    """Seconds for scikit-learn's pass over the images: logistic regression by SGD."""
    try:
        from sklearn.linear_model import SGDClassifier
    except ImportError:
        raise MissingRequirement("needs scikit-learn: pip install '.[bench]'") from None

    from mnist37 import data

    images = data.load()
    x, y = images.train_x.numpy(), images.train_y.numpy().ravel()
    classifier = SGDClassifier(loss="log_loss", random_state=42)
    return measure_call(lambda: classifier.partial_fit(x, y, classes=[0, 1]))


def fdatasync(folder: Path, size: int) -> Measure:
    """Median seconds to write so many bytes into a file that has room for them, and to sync."""
    room = 4 * 2**20  # as long as SQLite's log gets
    file = os.open(folder / "raw", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(room), 0)
    os.fsync(file)
    place = 0

    def sync() -> None:
        nonlocal place
        place = (place + size) % (room - size)
        os.pwrite(file, bytes(size), place)
        os.fdatasync(file)

    return measure_median(sync)


def measure_median(call: Callable[[], object]) -> Measure:
    """Measures the median seconds of a call, one after the other."""

    def measure(seconds: float) -> float:
        taken: list[float] = []
        until = time.perf_counter() + seconds
        while not taken or time.perf_counter() < until:
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    return measure


if __name__ == "__main__":
    serve_nothing()
