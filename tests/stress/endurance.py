"""Mixed load for an hour: memory, threads and files stay what they were, no update is lost.

    PYTHONPATH=tests python tests/stress/endurance.py [MINUTES [SHARE]]

60 minutes, at up to 0.2 of a core.

Training, stepping, predicting, streaming, cancelling, listing, watching, restoring, refused calls
and broken connections, in random order, one after the other, on a server whose state is on disk. A
twin without a server does the same updates. SHARE bounds the processor time of both sides together.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from mnist37_client import Client, InvalidInput, NotFound, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub
from support.twin import Twin, sets
from support.vitals import MIB, Vitals
from torch import Tensor

from mnist37.optimizer import Sgd

SAMPLE_SECONDS = 10  # seconds between samples
SETTLED = 0.2  # of the time, after which nothing may grow: until then caches and histories fill
MORE_MEMORY = 48 * MIB
MORE_FILES = 16
MORE_THREADS = 32
BATCH_SIZE = 256
KEPT = 1000  # versions, at least; a run that is cancelled may take a hundred of them
TIMEOUT = 60


class Load:
    """What is done, each by a method; those that write do the same to the twin."""

    def __init__(self, address: str, seed: int) -> None:
        self.client = Client(address, timeout=TIMEOUT)
        self.channel = grpc.insecure_channel(address)
        self.stub = Mnist37ServiceStub(self.channel)
        self.address = address
        self.random = random.Random(seed)
        self.images, self.labels = validation_images()
        self.twin = Twin()
        self.version = self.client.get_model().version
        self.past: dict[int, Tensor] = {}
        self.done: Counter[str] = Counter()

    def one(self) -> None:
        kinds = {
            self.step: 10,
            self.predict: 10,
            self.stream: 3,
            self.train: 3,
            self.cancelled_train: 2,
            self.cancelled_calls: 2,
            self.lists: 3,
            self.watch: 1,
            self.loss: 2,
            self.restore: 2,
            self.initialize: 1,
            self.refused: 2,
            self.broken: 1,
            self.another_client: 1,
        }
        (kind,) = self.random.choices(list(kinds), list(kinds.values()))
        kind()
        self.done[kind.__name__] += 1

    def wrote(self, version: int, updates: int = 1) -> None:
        self.version += updates
        assert version == self.version, f"version {version}, not {self.version}"
        self.past[version] = self.twin.parameters.clone()
        if len(self.past) > 100:
            del self.past[min(self.past)]

    def step(self) -> None:
        rate = self.random.choice([0.1, 1.0])
        request_id = f"step-{self.version}" if self.random.random() < 0.5 else None
        version = self.client.step(learning_rate=rate, request_id=request_id).version
        if request_id:
            assert self.client.step(learning_rate=rate, request_id=request_id).version == version
        self.twin.step(rate)
        self.wrote(version)

    def predict(self) -> None:
        count = self.random.choice([1, 5, 200, 2038])
        assert self.client.predict(self.images[:count]).version == self.version

    def stream(self) -> None:
        batches = [self.images[:20]] * self.random.randint(1, 20)
        answers = self.client.predict_stream(batches)
        for number, answer in enumerate(answers):
            assert answer.version == self.version
            if number > 10:
                break  # which cancels it
        answers.close()  # type: ignore[attr-defined]

    def train(self) -> None:
        epochs, seed = self.random.randint(1, 10), self.random.randrange(5)
        ended = self.client.train(epochs, seed=seed, request_id=f"run-{self.version}").wait()
        self.twin.train(epochs, seed=seed)
        self.wrote(ended.version, 49 * epochs)

    def cancelled_train(self) -> None:
        run = self.client.train(1_000_000)
        for _ in range(self.random.randint(1, 20)):
            next(run)
        run.cancel()
        self.client.initialize(seed=7)  # waits for the run's end, which is on the version before
        ended = self.client.versions(2)[1].version
        epochs, steps = divmod(ended - self.version, 49)
        self.twin.train(epochs)
        batches = sets().mini_batches(42, BATCH_SIZE)
        batches.sgd(self.twin.parameters.numpy(), batches.order(epochs + 1)[:steps], Sgd())
        self.wrote(ended, ended - self.version)
        assert self.client.restore(ended) == ended + 2
        self.wrote(ended + 2, 2)

    def cancelled_calls(self) -> None:
        question = pb.PredictRequest(pixels=self.images[:50].tobytes())
        for _ in range(20):
            self.stub.Predict.future(question, timeout=TIMEOUT).cancel()
        call = self.stub.GetLoss.future(pb.GetLossRequest(split=pb.SPLIT_TRAIN), timeout=0.001)
        assert call.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK)

    def lists(self) -> None:
        assert self.client.versions()[0].version == self.version
        assert len(self.client.runs()) <= 100

    def watch(self) -> None:
        if self.client.runs():
            list(self.client.watch_run(follow=True))

    def loss(self) -> None:
        assert self.client.get_loss("valid").version == self.version
        self.client.get_loss(images=self.images[:300], labels=self.labels[:300])

    def restore(self) -> None:
        kept = {found.version for found in self.client.versions()}
        assert len(kept) >= KEPT or kept >= self.past.keys(), "forgotten too early"
        known = [version for version in self.past if version in kept]
        if known:
            chosen = self.random.choice(known)
            version = self.client.restore(chosen)
            self.twin.parameters = self.past[chosen].clone()
            self.wrote(version)

    def initialize(self) -> None:
        seed = self.random.randrange(2**64)
        version = self.client.initialize(seed=seed)
        place, self.twin = self.twin.batch_cursor, Twin(seed)
        self.twin.batch_cursor = place
        self.wrote(version)

    def refused(self) -> None:
        for wrong in (lambda: self.client.restore(2**63), lambda: self.client.train(0).wait()):
            try:
                wrong()
            except (NotFound, InvalidInput):
                continue
            raise AssertionError("it was not refused")

    def broken(self) -> None:
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT) as connection:
            connection.sendall(self.random.randbytes(self.random.randint(0, 300)))

    def another_client(self) -> None:
        with Client(self.address, timeout=TIMEOUT) as client:
            assert client.predict(self.images[0]).version == self.version

    def check(self) -> None:
        model = self.client.get_model()
        assert (model.version, model.digest) == (self.version, self.twin.digest)

    def close(self) -> None:
        self.client.close()
        self.channel.close()


def processor_time(process: int) -> float:
    """Seconds that a process and this one have used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + time.process_time()


def endure(seconds: float, share: float, folder: Path) -> None:
    samples: list[tuple[float, Vitals]] = []
    with LocalServer("--device", "cpu", "--state", str(folder)) as server:
        process = server.process.pid
        load = Load(server.address, 37)
        began, used = time.monotonic(), processor_time(process)
        while (passed := time.monotonic() - began) < seconds:
            load.one()
            if passed >= SAMPLE_SECONDS * len(samples):
                load.check()
                samples.append((passed, Vitals.of(process)))
                report(samples, load, folder)
            ahead = (processor_time(process) - used) / share - (time.monotonic() - began)
            time.sleep(max(ahead, 0))
        load.check()
        load.close()
        status, logged = server.stop()
    assert status == 0
    assert "ERROR" not in logged
    with LocalServer("--device", "cpu", "--state", str(folder)) as server:
        with Client(server.address) as client:
            model = client.get_model()
        assert (model.version, model.digest) == (load.version, load.twin.digest), "started again"
    print(f"{seconds / 60:.0f} minutes, {sum(load.done.values()):,} calls: {dict(load.done)}")
    print(f"version {load.version:,}, the twin's to the bit, and so after a new start")
    judge(samples)


def report(samples: list[tuple[float, Vitals]], load: Load, folder: Path) -> None:
    if len(samples) % 6 == 1:
        passed, now = samples[-1]
        state = sum(path.stat().st_size for path in folder.iterdir())
        print(
            f"{passed / 60:5.1f} min  {now.memory / MIB:6.1f} MiB  {now.threads} threads"
            f"  {now.files} files  {state / MIB:5.1f} MiB on disk  version {load.version:,}",
            flush=True,
        )


def judge(samples: list[tuple[float, Vitals]]) -> None:
    """Nothing has grown since it was settled."""
    later = samples[int(len(samples) * SETTLED) :]
    memory = np.array([(passed / 3600, vitals.memory / MIB) for passed, vitals in later])
    if len(later) > 2:
        slope, _ = np.polyfit(memory[:, 0], memory[:, 1], 1)
        print(
            f"from {later[0][0] / 60:.0f} min on: {memory[:, 1].min():.1f} to"
            f" {memory[:, 1].max():.1f} MiB, by a line {slope:+.1f} MiB an hour"
        )
    first = later[0][1]
    for passed, now in later:
        when = f"after {passed / 60:.1f} minutes: {now}, from {first}"
        assert now.memory <= first.memory + MORE_MEMORY, when
        assert now.threads <= first.threads + MORE_THREADS, when
        assert now.files <= first.files + MORE_FILES, when


if __name__ == "__main__":
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    most = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2
    with tempfile.TemporaryDirectory() as temporary:
        endure(minutes * 60, most, Path(temporary))
