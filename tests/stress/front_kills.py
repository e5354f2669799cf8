"""A server and the front before it, killed again and again under mixed load through the client.

    PYTHONPATH=tests python -m stress.front_kills [MINUTES]

The default is 60 minutes. A script makes random writes, each with a request_id, and three readers
read, all through the front by the client as it is by default. Meanwhile the front, the owner or
both are killed by SIGKILL and started again. No read may fail, no reader's version may go back, a
version always has the same bits, and in the end the model is the twin's. In the last third nobody
is killed, and memory, threads and files must not grow.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mnist37_client import Client, Mnist37Error, validation_images
from mnist37_protos.v1 import mnist37_pb2 as pb
from stress.chaos.world import START_SECONDS, Front, Process
from stress.crashes import Script
from stress.endurance import assert_no_growth
from support.vitals import Vitals

READERS = 3
KILLING_SHARE = 2 / 3  # of the time
SAMPLE_SECONDS = 5.0  # between samples
PAUSE_SECONDS = 0.01  # between two reads, so that the load leaves time to start again


class Readings:
    """The answers of all readers, counted and compared with each other."""

    def __init__(self) -> None:
        # guarded by _lock: counts, failures and _answers
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._answers: dict[int, float] = {}

    def count(self, kind: str) -> None:
        """Count a read that was answered."""
        with self._lock:
            self.counts[kind] += 1

    def fail(self, text: str) -> None:
        """Record a read that failed or was wrong."""
        with self._lock:
            self.failures.append(text)

    def compare(self, version: int, probability: float) -> None:
        """Compare a probability of the one image with others of its version."""
        with self._lock:
            known = self._answers.setdefault(version, probability)
        if known != probability:
            self.fail(f"version {version}: {probability} and {known}")


class Reader(threading.Thread):
    """A client that reads through the front until it is stopped.

    Args:
        address: HOST:PORT of the front.
        readings: of all readers.
        seed: of the order of the reads.
    """

    def __init__(self, address: str, readings: Readings, seed: int) -> None:
        super().__init__(name="reader")
        self._client = Client(address)
        self._readings = readings
        self._random = random.Random(seed)
        self._images = validation_images()[0]
        self._must_end = threading.Event()
        self._newest = 0
        self.start()

    def stop(self) -> None:
        """End the reader, after the read that is under way."""
        self._must_end.set()
        self.join()
        self._client.close()

    def run(self) -> None:
        """Read until the end."""
        kinds: dict[Callable[[], int], int] = {
            self._predict_one: 10,
            self._predict_many: 3,
            self._stream: 1,
            self._model: 2,
            self._loss: 1,
        }
        while not self._must_end.wait(PAUSE_SECONDS):
            (kind,) = self._random.choices(list(kinds), list(kinds.values()))
            try:
                version = kind()
            except Mnist37Error as error:
                self._readings.fail(f"{kind.__name__}: {error!r}")
                continue
            if version < self._newest:
                self._readings.fail(f"{kind.__name__}: {version} after {self._newest}")
            self._newest = version
            self._readings.count(kind.__name__.strip("_"))

    def _predict_one(self) -> int:
        answer = self._client.predict(self._images[0])
        self._readings.compare(answer.version, float(answer.probabilities[0]))
        return answer.version

    def _predict_many(self) -> int:
        answer = self._client.predict(self._images[:64])
        self._readings.compare(answer.version, float(answer.probabilities[0]))
        return answer.version

    def _stream(self) -> int:
        answers = list(self._client.predict_stream([self._images[:20]] * 5))
        for answer in answers:
            self._readings.compare(answer.version, float(answer.probabilities[0]))
        return answers[-1].version

    def _model(self) -> int:
        return self._client.get_model().version

    def _loss(self) -> int:
        return self._client.get_loss("valid").version


class Fronted:
    """An owner and a front, each on its port, which are killed and started again.

    Args:
        folder: for the state.
        seed: of the kills.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.owner = Process(["--device", "cpu", "--state", str(folder)])
        self.front = Front(self.owner.address)
        self.kills: Counter[str] = Counter()
        self._random = random.Random(seed)

    def wait(self) -> None:
        """Wait until the front answers predictions, and the owner answers through it."""
        for rpc, request in (
            ("Predict", pb.PredictRequest(pixels=bytes(784))),
            ("GetModel", pb.GetModelRequest()),
        ):
            deadline = time.monotonic() + START_SECONDS
            while self.front.ask(request, rpc) is None:
                assert time.monotonic() < deadline, f"the front does not answer {rpc}"
                time.sleep(0.02)

    def kill_one(self, name: str) -> None:
        """Kill the front, the owner, or both, and start them again."""
        both: list[Process] = [self.owner, self.front]
        killed = {"front": both[1:], "owner": both[:1], "both": both}[name]
        for process in killed:
            process.kill()
        time.sleep(self._random.uniform(0, 0.5))
        for process in killed:
            process.start()
        self.kills[name] += 1

    def vitals(self) -> Vitals:
        """Return the sums of what the owner, the launcher and Envoy take."""
        both = (Vitals.of_family(each.pid) for each in (self.owner, self.front))
        return Vitals(*map(sum, zip(*both, strict=True)))

    def close(self) -> None:
        """End both."""
        self.front.kill()
        self.owner.kill()


def run(folder: Path, seconds: float, seed: int, rest: tuple[float, float]) -> Counter[str]:
    """Kill a server and its front under load, and check what callers are told.

    Args:
        folder: for the state.
        seconds: how long it goes on; each kill happens at least once.
        seed: of the kills, the writes and the reads.
        rest: the least and the most seconds between two kills.

    Returns:
        The counts of kills, reads and writes.

    Raises:
        AssertionError: a promise is broken.
    """
    chance, readings = random.Random(seed), Readings()
    with closing(Fronted(folder, seed)) as fronted:
        fronted.wait()
        readers = [Reader(fronted.front.address, readings, seed + each) for each in range(READERS)]
        writer = Writer(fronted.front.address, seed)
        samples: list[tuple[float, Vitals]] = []
        began = time.monotonic()
        try:
            names = ["front", "owner", "both"]
            while names:
                for name in names:
                    time.sleep(chance.uniform(*rest))
                    fronted.kill_one(name)
                    fronted.wait()
                chance.shuffle(names)
                if time.monotonic() - began > KILLING_SHARE * seconds:
                    names = []
            while (passed := time.monotonic() - began) < seconds:
                time.sleep(SAMPLE_SECONDS)
                samples.append((passed, fronted.vitals()))
            writer.stop()
            writer.check()
        finally:
            writer.stop()
            for reader in readers:
                reader.stop()
    assert not readings.failures, readings.failures[:20]
    if samples:
        assert_no_growth(samples)
    kills = Counter({f"kills of {name}": count for name, count in fronted.kills.items()})
    return kills + readings.counts + Counter(writes=writer.script.done)


class Writer(threading.Thread):
    """A client that makes random writes through the front until it is stopped.

    Args:
        address: HOST:PORT of the front.
        seed: of the writes.
    """

    def __init__(self, address: str, seed: int) -> None:
        super().__init__(name="writer")
        self.script = Script(seed)
        self._client = Client(address)
        self._must_end = threading.Event()
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Write until the end."""
        try:
            while not self._must_end.wait(PAUSE_SECONDS):
                self.script.write(self._client)
        except BaseException as error:  # noqa: BLE001 - `check` raises it
            self._error = error

    def stop(self) -> None:
        """End the writer, after the write that is under way."""
        self._must_end.set()
        self.join()

    def check(self) -> None:
        """Assert that each write happened once, and the model is the twin's."""
        if self._error is not None:
            raise self._error
        self.script.check(self._client)
        self._client.close()


if __name__ == "__main__":
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary), 60 * minutes, time.time_ns() % 2**32, rest=(1, 10))
    for what, count in sorted(found.items()):
        print(f"{what:20} {count:10,}")
    print("no read failed, no version went back, and the model is the twin's, to the bit")
