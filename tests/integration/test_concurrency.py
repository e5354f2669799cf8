"""Tests of reads during writes: each is of one version, and none waits."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mnist37_client import Client, Exhausted, Prediction, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from support.scraping import wait_until
from support.twin import Twin, data


def test_every_answer_during_training_is_of_the_version_that_it_names(client: Client) -> None:
    # 8 threads predict without pause during a run. Each answer is compared with the probabilities
    # of its version, which the core computes without a server.
    images, _ = validation_images()
    chosen = np.arange(0, 2038, 100)
    start, epochs = client.get_model().version, 300
    answers: list[Prediction] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(client.predict(images[chosen]))

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        versions = [progress.version for progress in client.train(epochs=epochs)]
        done.set()
        for future in asking:
            future.result()
    assert versions == [start + 49 * epoch for epoch in range(1, epochs + 1)]

    twin = Twin()
    expected = {start: twin.probabilities(data().valid_x[chosen])}
    for epoch in range(1, epochs + 1):
        twin.train(1, first=epoch)
        expected[start + 49 * epoch] = twin.probabilities(data().valid_x[chosen])
    seen = {answer.version for answer in answers}
    assert len(seen) > 10, "the answers must be from many versions of the run"
    found = np.stack([answer.probabilities for answer in answers])
    right = np.stack([expected[answer.version] for answer in answers])
    # From epoch to epoch the probabilities differ by more than this tolerance.
    np.testing.assert_allclose(found, right, atol=1e-4)


def test_versions_never_go_back(client: Client) -> None:
    images, _ = validation_images()
    versions: list[int] = []
    deadline = time.monotonic() + 30  # one commit may take longer than many predictions
    with client.train(epochs=100_000) as run:
        next(run)
        while len(versions) < 300 or (len(set(versions)) < 3 and time.monotonic() < deadline):
            versions.append(client.predict(images[0]).version)
    assert versions == sorted(versions)
    assert len(set(versions)) >= 3


def test_writes_are_done_in_the_order_they_came(client: Client) -> None:
    # During a run, Steps are queued one after the other; their versions must be in this order.
    steps = 12
    run = client.train(epochs=800)
    next(run)
    with ThreadPoolExecutor(steps) as pool:
        futures = []
        for _ in range(steps):
            futures.append(pool.submit(client.step))
            time.sleep(0.15)  # a thread may be that late on a machine that is busy
        last = run.wait()
        versions = [future.result().version for future in futures]
    assert versions == list(range(last.version + 1, last.version + steps + 1))


def waiting_calls(address: str, count: int, leave: ExitStack) -> list[Callable[[], None]]:
    """Return functions that each start `count` calls of one kind that wait.

    The first function starts only one run, which the others wait for.

    Args:
        address: HOST:PORT of the server.
        count: the number of calls of each kind.
        leave: the calls last until this stack is closed.
    """
    channel = leave.enter_context(grpc.insecure_channel(address))
    stub = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
    stop = threading.Event()
    leave.callback(stop.set)

    def silent_requests() -> Iterator[pb.PredictRequest]:
        stop.wait()
        yield from ()

    def train() -> None:
        call = stub.Train(pb.TrainRequest(epochs=1_000_000, request_id="the run"))
        leave.callback(call.cancel)
        next(call)

    def join() -> None:
        for _ in range(count):
            call = stub.Train(pb.TrainRequest(epochs=1_000_000, request_id="the run"))
            leave.callback(call.cancel)
            next(call)

    def steps() -> None:
        for _ in range(count):
            leave.callback(stub.Step.future(pb.StepRequest()).cancel)

    def initializes() -> None:
        for _ in range(count):
            leave.callback(stub.Initialize.future(pb.InitializeRequest()).cancel)

    def streams() -> None:
        for _ in range(count):
            leave.callback(stub.PredictStream(silent_requests()).cancel)

    def watches() -> None:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(count):
            call = health.Watch(health_pb2.HealthCheckRequest())
            leave.callback(call.cancel)
            next(call)

    return [train, join, steps, initializes, streams, watches]


@pytest.mark.alone
@pytest.mark.skipif("MNIST37_ADDRESS" in os.environ, reason="measures a server on this machine")
def test_reads_never_wait_for_waiting_calls(server: LocalServer) -> None:
    # 64 callers of each kind wait to write, hold a stream open, or watch the health. Predict must
    # be as fast as during a run alone. The two are measured in turn, so that changes of the
    # machine's speed affect both.
    images, _ = validation_images()

    def median_latency(client: Client) -> float:
        taken = []
        for _ in range(150):
            began = time.perf_counter()
            client.predict(images[0])
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    ratios = []
    with Client(server.address) as client:
        median_latency(client)
        for _ in range(5):
            with ExitStack() as leave:
                train, _, *waiting = waiting_calls(server.address, 64, leave)
                train()
                alone = median_latency(client)
                for begin in waiting:
                    begin()
                time.sleep(0.1)
                ratios.append(median_latency(client) / alone)
            time.sleep(0.1)
    # If waiting calls used all threads, it would be 1.4 s to 1 ms, or there would be no answer.
    assert statistics.median(ratios) < 1.5


def test_sixty_four_callers_of_one_run_all_receive_its_progress(server: LocalServer) -> None:
    with ExitStack() as leave, Client(server.address, timeout=5) as client:
        train, join, *_ = waiting_calls(server.address, 64, leave)
        train()
        join()
        images, _ = validation_images()
        assert client.predict(images).version > 0


def test_a_full_queue_refuses_writes_at_once(server: LocalServer) -> None:
    with ExitStack() as leave, Client(server.address) as client:
        train, _, steps, initializes, *_ = waiting_calls(server.address, 150, leave)
        train()
        steps()
        initializes()
        time.sleep(1.5)
        with pytest.raises(Exhausted, match="256 callers wait for writes already"):
            client.step()
        assert client.get_loss("valid").count == 2038
    with Client(server.address) as client:
        assert wait_until(lambda: client.runs(limit=1)[0].state != "running", 10)
        client.step()
        origins = [version.origin for version in client.versions(limit=2)]
        assert origins == ["step", "train"], "cancelled writes must not be done"
