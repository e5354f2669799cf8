"""A server that is killed many times, compared with a twin without a server.

    PYTHONPATH=tests python tests/stress/crashes.py [KILLS]

KILLS is the number of SIGKILLs (1,000). A script makes random writes and moves tags meanwhile, each
with a request_id, and sends a write again if its answer was lost. At the end the model must equal
the twin's, to the bit, with the same version, and each tag must point where it was put.
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
    """A sequence of random writes, each checked against the twin."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.twin = Twin()
        self.version = 0
        self.tags: dict[str, int] = {}
        self.done = 0

    def write(self, client: Client) -> None:
        """Make the next write, and wait until it is acknowledged."""
        kind = self.random.choices(["step", "train", "initialize", "tag"], [6, 3, 1, 3])[0]
        name = f"write-{self.done}"
        lr = self.random.choice([0.1, 0.5, 1.0])
        if kind == "step":
            version = client.step(learning_rate=lr, request_id=name).version
            self.twin.step(lr)
            self.version += 1
        elif kind == "train":
            epochs, size = self.random.randint(1, 30), self.random.choice([100, 256, 1000])
            run = client.train(epochs, learning_rate=lr, batch_size=size, request_id=name)
            version = run.wait().version
            self.twin.train(epochs, lr, size)
            self.version += epochs * -(-12396 // size)
        elif kind == "tag":
            tag = self.random.choice("abc")
            version = self.tags[tag] = client.tag_version(tag, request_id=name)
        else:
            seed = self.random.randrange(2**64)
            version = client.initialize(seed=seed, request_id=name)
            batch_cursor, self.twin = self.twin.batch_cursor, Twin(seed)
            self.twin.batch_cursor = batch_cursor
            self.version += 1
        assert version == self.version, f"{kind} {name}: version {version}, not {self.version}"
        self.done += 1

    def check(self, client: Client) -> None:
        """Assert that the model equals the twin's, and that each tag points where it was put."""
        model = client.get_model()
        assert (model.version, model.digest) == (self.version, self.twin.digest)
        tags = {tag.name: tag.version for tag in client.tags() if not tag.name.startswith("best@")}
        assert tags == self.tags


def wait_for_a_write(script: Script) -> None:
    """Wait until the script writes again; its client may have paused after the last kill."""
    before, deadline = script.done, time.monotonic() + 2
    while script.done == before and time.monotonic() < deadline:
        time.sleep(0.001)


def random_kills(kills: int, seed: int, folder: Path) -> int:
    """Kill a server at random moments of a script of writes.

    Returns:
        The number of writes.
    """
    victim, script, moments = Victim(folder), Script(seed), random.Random(seed)
    client = victim.client()
    stop = threading.Event()

    def kill_repeatedly() -> None:
        for number in range(kills):
            wait_for_a_write(script)
            time.sleep(moments.uniform(0, 0.15))
            victim.kill()
            victim.start()
            victim.client().close()
            if number % 50 == 49:
                print(f"{number + 1} kills, {script.done} writes", flush=True)
        stop.set()

    thread = threading.Thread(target=kill_repeatedly)
    thread.start()
    try:
        while not stop.is_set():
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
    print(f"{count} kills, {writes} writes, {took:.0f} s: the model equals the twin's, to the bit")
