"""The baselines of the benchmarks: grpcio alone, a plain read, the book, scikit-learn.

    python -m benchmarks.baselines    runs the empty servicer, until SIGTERM

torch is imported where it is used, because processes that only start other processes don't need it.
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

EPOCHS = 20  # of training before a server is measured
START = 2**62  # of the server: any number, which takes 8 bytes
VERSION = 980  # of the model after them: 20 x 49 mini-batches


def predict_request(images: int) -> bytes:
    """Return a serialized PredictRequest with the first images of the validation set."""
    pixels = validation_images()[0][:images].tobytes()
    return pb.PredictRequest(pixels=pixels).SerializeToString()


def predict_answer(images: int) -> bytes:
    """Return a serialized PredictResponse with as many bytes as a trained server's response."""
    answer = pb.PredictResponse(probabilities=[0.5] * images, version=VERSION, start=START)
    return answer.SerializeToString()


def serve_nothing() -> None:
    """Run a servicer with mnist37's methods, options and thread counts, and ready-made responses.

    Its methods are registered as generated code registers them, and run on Python's own executor as
    in grpcio's examples. It does not parse requests, serialize responses or count calls.
    """
    from mnist37_server.config import Config
    from mnist37_server.rpc.server import options
    from mnist37_server.rpc.threads.elastic_pool import SHORT_CALL_THREADS
    from mnist37_server.services.mnist37_service import SHORT_RPCS

    config = Config()
    step_answer = pb.StepResponse(loss=0.123456789, version=VERSION, start=START)
    step_response = step_answer.SerializeToString()
    probabilities = {len(predict_request(n)): predict_answer(n) for n in (1, 64, 1024)}

    def predict(request: bytes, context: grpc.ServicerContext) -> bytes:
        return probabilities[len(request)]

    def step(request: bytes, context: grpc.ServicerContext) -> bytes:
        return step_response

    methods = {"Predict": predict, "Step": step}
    long_calls = ThreadPoolExecutor(config.max_rpcs)
    for name, method in methods.items():
        if name not in SHORT_RPCS:
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
    """Return a measurement of the mean seconds of a call, repeated in a loop."""

    def measure(seconds: float) -> float:
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or not count:
            work()
            count += 1
        return elapsed / count

    return measure


def memory_read() -> Measure:
    """Return a measurement of the seconds to read the training images once, by one thread.

    The images are 12,396 x 785 float32. The 785th number of each is the 1 that the bias is
    multiplied by. Three functions read each number once; the one that is fastest on this machine
    counts.
    """
    import torch

    from mnist37 import data

    torch.set_num_threads(1)
    x = data.load().train_x
    images = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    flat = images.view(-1)
    vector = torch.ones(images.shape[1])
    reads: list[Callable[[], object]] = [
        images.sum,
        lambda: torch.dot(flat, flat),
        lambda: torch.mv(images, vector),
    ]

    def seconds_of(read: Callable[[], object]) -> float:
        return statistics.median(measure_call(read)(0) for _ in range(7))

    return measure_call(min(reads, key=seconds_of))


def book_epoch() -> Measure:
    """Return a measurement of the seconds of an epoch as the book's chapter 4 trains it.

    It uses a DataLoader, autograd and an update. It does not shuffle: shuffling would be slower.
    Its formulas are the book's alone, without the checks in mnist37.model.
    """
    import torch
    from torch.utils.data import DataLoader

    from mnist37 import data
    from mnist37.model import init_params

    torch.set_num_threads(1)
    torch.manual_seed(42)
    dset: Any = data.load().dset
    loader: DataLoader[Any] = DataLoader(dset, batch_size=256)
    weights, bias = init_params((784, 1)), init_params(1)

    def epoch() -> None:
        for xb, yb in loader:
            predictions = (xb @ weights + bias).sigmoid()
            loss = torch.where(yb == 1, 1 - predictions, predictions).mean()
            torch.autograd.backward(loss)
            for parameter in (weights, bias):
                assert parameter.grad is not None
                parameter.data -= parameter.grad * 1.0
                parameter.grad.zero_()

    return measure_call(epoch)


def sklearn_pass() -> Measure:
    """Return a measurement of the seconds of scikit-learn's pass over the training images.

    It is logistic regression by SGD.

    Raises:
        MissingRequirement: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import SGDClassifier
    except ImportError:
        raise MissingRequirement("needs scikit-learn: pip install '.[bench]'") from None

    from mnist37 import data

    images = data.load()
    x, y = images.train_x.numpy(), images.train_y.numpy().ravel()
    classifier = SGDClassifier(loss="log_loss", random_state=42)
    return measure_call(lambda: classifier.partial_fit(x, y, classes=[0, 1]))


def fdatasync(folder: Path, size_bytes: int) -> Measure:
    """Return a measurement of the median seconds to write `size_bytes` into a file and sync it.

    The file is allocated before, as SQLite's log is.
    """
    file_bytes = 4 * 2**20  # the size that SQLite's log grows to
    file = os.open(folder / "raw", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(file_bytes), 0)
    os.fsync(file)
    offset = 0

    def sync() -> None:
        nonlocal offset
        offset = (offset + size_bytes) % (file_bytes - size_bytes)
        os.pwrite(file, bytes(size_bytes), offset)
        os.fdatasync(file)

    return measure_median(sync)


def measure_median(call: Callable[[], object]) -> Measure:
    """Return a measurement of the median seconds of a call, one call at a time."""

    def measure(seconds: float) -> float:
        durations: list[float] = []
        end = time.perf_counter() + seconds
        while not durations or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            durations.append(time.perf_counter() - start)
        return statistics.median(durations)

    return measure


if __name__ == "__main__":
    serve_nothing()
