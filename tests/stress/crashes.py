"""Servers that are killed, again and again, and the twin that never was.

    PYTHONPATH=tests python tests/stress/crashes.py [KILLS]      so many SIGKILLs (1,000)

A script of random writes goes on through all of it, each with a request_id, sent again when its
answer was lost. At the end the model must be the twin's, to the bit and to the version.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from mnist37_client import Client
from stress.victim import Victim
from support.twin import Twin


class Script:
    """Random writes, one after the other, each checked against the twin's."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.twin = Twin()
        self.version = 0
        self.done = 0

    def write(self, client: Client) -> None:
        """Does the next write; returns when it is acknowledged."""
        kind = self.random.choices(["step", "train", "initialize"], [6, 3, 1])[0]
        name = f"write-{self.done}"
        lr = self.random.choice([0.1, 0.5, 1.0])
        if kind == "step":
            answered = client.step(learning_rate=lr, request_id=name).version
            self.twin.step(lr)
            self.version += 1
        elif kind == "train":
            epochs, size = self.random.randint(1, 30), self.random.choice([100, 256, 1000])
            run = client.train(epochs, learning_rate=lr, batch_size=size, request_id=name)
            answered = run.wait().version
            self.twin.train(epochs, lr, size)
            self.version += epochs * -(-12396 // size)
        else:
            seed = self.random.randrange(2**64)
            answered = client.initialize(seed=seed, request_id=name)
            place, self.twin = self.twin.batch_cursor, Twin(seed)
            self.twin.batch_cursor = place
            self.version += 1
        assert answered == self.version, f"{kind} {name}: version {answered}, not {self.version}"
        self.done += 1

    def check(self, client: Client) -> None:
        """The model is the twin's."""
        model = client.get_model()
        assert (model.version, model.digest) == (self.version, self.twin.digest)


def wait_for_a_write(script: Script) -> None:
    """Returns when the script is writing again; its client may have paused after the last kill."""
    before, deadline = script.done, time.monotonic() + 2
    while script.done == before and time.monotonic() < deadline:
        time.sleep(0.001)


def random_kills(kills: int, seed: int, folder: Path) -> int:
    """Kills a server at random moments of a script of writes; returns how many it did."""
    victim, script, moments = Victim(folder), Script(seed), random.Random(seed)
    client = victim.client()
    over = threading.Event()

    def killer() -> None:
        for number in range(kills):
            wait_for_a_write(script)
            time.sleep(moments.uniform(0, 0.15))
            victim.kill()
            victim.start()
            victim.client().close()
            if number % 50 == 49:
                print(f"{number + 1} kills, {script.done} writes", flush=True)
        over.set()

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        while not over.is_set():
            script.write(client)
        script.write(client)
        script.check(client)
    finally:
        thread.join()
        client.close()
        victim.kill()
    return script.done


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        writes = random_kills(count, 37, Path(temporary))
    took = time.monotonic() - began
    print(f"{count} kills, {writes} writes, {took:.0f} s: the model is the twin's, to the bit")
