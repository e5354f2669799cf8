"""Mixed load for an hour: memory, threads and files must not grow, and no update may be lost.

    PYTHONPATH=tests python tests/stress/endurance.py [MINUTES [SHARE]]

The defaults are 60 minutes and a share of 0.2 of a core.

The load is Train, Step, predictions, streams, cancelled calls, lists, watches, Restore, refused
calls and broken connections, in random order, one after the other, on a server whose state is on
disk. A twin without a server makes the same updates. SHARE limits the processor time of server and
load together.
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
from support.twin import Twin, datasets
from support.vitals import MIB, Vitals
from torch import Tensor

from mnist37.optimizer import Sgd

SAMPLE_SECONDS = 10  # between samples
WARM_UP_SHARE = 0.2  # of the time, in which caches and histories fill; then nothing may grow
MEMORY_GROWTH_MAX = 48 * MIB
FILES_GROWTH_MAX = 16
THREADS_GROWTH_MAX = 32
BATCH_SIZE = 256
RETAINED_VERSIONS_MIN = 1000  # a cancelled run may have a hundred of them
TIMEOUT = 60


class Load:
    """The load's calls, one method each. A method that writes makes the same update of the twin."""

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

    def call_one(self) -> None:
        """Make one call of a random kind."""
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

    def record_write(self, version: int, updates: int = 1) -> None:
        """Check the version that a write returned, and remember the twin's parameters for it."""
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
        self.record_write(version)

    def predict(self) -> None:
        count = self.random.choice([1, 5, 200, 2038])
        assert self.client.predict(self.images[:count]).version == self.version

    def stream(self) -> None:
        batches = [self.images[:20]] * self.random.randint(1, 20)
        answers = self.client.predict_stream(batches)
        for number, answer in enumerate(answers):
            assert answer.version == self.version
            if number > 10:
                break  # the stream is cancelled below
        answers.close()  # type: ignore[attr-defined]

    def train(self) -> None:
        epochs, seed = self.random.randint(1, 10), self.random.randrange(5)
        ended = self.client.train(epochs, seed=seed, request_id=f"run-{self.version}").wait()
        self.twin.train(epochs, seed=seed)
        self.record_write(ended.version, 49 * epochs)

    def cancelled_train(self) -> None:
        run = self.client.train(1_000_000)
        for _ in range(self.random.randint(1, 20)):
            next(run)
        run.cancel()
        self.client.initialize(seed=7)  # waits for the end of the run, one version before its own
        version = self.client.versions(2)[1].version
        epochs, steps = divmod(version - self.version, 49)
        self.twin.train(epochs)
        batches = datasets().mini_batches(42, BATCH_SIZE)
        batches.sgd(self.twin.parameters.numpy(), batches.order(epochs + 1)[:steps], Sgd())
        self.record_write(version, version - self.version)
        assert self.client.restore(version) == version + 2
        self.record_write(version + 2, 2)

    def cancelled_calls(self) -> None:
        request = pb.PredictRequest(pixels=self.images[:50].tobytes())
        for _ in range(20):
            self.stub.Predict.future(request, timeout=TIMEOUT).cancel()
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
        retained = {found.version for found in self.client.versions()}
        assert len(retained) >= RETAINED_VERSIONS_MIN or retained >= self.past.keys(), (
            "removed too early"
        )
        candidates = [version for version in self.past if version in retained]
        if candidates:
            chosen = self.random.choice(candidates)
            version = self.client.restore(chosen)
            self.twin.parameters = self.past[chosen].clone()
            self.record_write(version)

    def initialize(self) -> None:
        seed = self.random.randrange(2**64)
        version = self.client.initialize(seed=seed)
        batch_cursor, self.twin = self.twin.batch_cursor, Twin(seed)
        self.twin.batch_cursor = batch_cursor
        self.record_write(version)

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
    """Return the processor time that a process and this one have used, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + time.process_time()


def endure(seconds: float, share: float, folder: Path) -> None:
    samples: list[tuple[float, Vitals]] = []
    with LocalServer("--device", "cpu", "--state", str(folder)) as server:
        process = server.process.pid
        load = Load(server.address, 37)
        began, used = time.monotonic(), processor_time(process)
        while (passed := time.monotonic() - began) < seconds:
            load.call_one()
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
        assert (model.version, model.digest) == (load.version, load.twin.digest), "after a restart"
    print(f"{seconds / 60:.0f} minutes, {sum(load.done.values()):,} calls: {dict(load.done)}")
    print(f"version {load.version:,}, equal to the twin's to the bit, also after a restart")
    assert_no_growth(samples)


def report(samples: list[tuple[float, Vitals]], load: Load, folder: Path) -> None:
    if len(samples) % 6 == 1:
        passed, now = samples[-1]
        state = sum(path.stat().st_size for path in folder.iterdir())
        print(
            f"{passed / 60:5.1f} min  {now.memory / MIB:6.1f} MiB  {now.threads} threads"
            f"  {now.files} files  {state / MIB:5.1f} MiB on disk  version {load.version:,}",
            flush=True,
        )


def assert_no_growth(samples: list[tuple[float, Vitals]]) -> None:
    """Assert that memory, threads and files have not grown since the end of the warm-up."""
    later = samples[int(len(samples) * WARM_UP_SHARE) :]
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
        assert now.memory <= first.memory + MEMORY_GROWTH_MAX, when
        assert now.threads <= first.threads + THREADS_GROWTH_MAX, when
        assert now.files <= first.files + FILES_GROWTH_MAX, when


if __name__ == "__main__":
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    most = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2
    with tempfile.TemporaryDirectory() as temporary:
        endure(minutes * 60, most, Path(temporary))
