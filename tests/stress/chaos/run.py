"""Followers under faults for some minutes: every answer must be what was written.

    PYTHONPATH=tests python -m stress.chaos.run [MINUTES]

A writer makes Steps; readers ask the owner, two followers, a follower of these and, where one can
run, a native front at random, each with what it has seen as its floor. Meanwhile processes are
killed and paused, connections cut, a backup restored, a second owner put in the place of the first,
and the leaf moved from one follower to the other. Every answer is checked: its bits are those of
its start and version, no session goes back, no version is from the future. In the end the model is
the twin's, and all followers have it.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from mnist37_client import Client
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from stress.chaos.book import Violation
from stress.chaos.reader import Reader
from stress.chaos.world import Owner, Process, World
from support.fronted import missing

READERS = 6


def kill_follower(world: World, random: random.Random) -> None:
    kill(random.choice(world.readable), random)


def pause_follower(world: World, random: random.Random) -> None:
    pause(random.choice(world.readable), random)


def kill_front(world: World, random: random.Random) -> None:
    kill(random.choice(world.fronts), random)


def pause_front(world: World, random: random.Random) -> None:
    pause(random.choice(world.fronts), random)


def kill(process: Process, random: random.Random) -> None:
    process.kill()
    time.sleep(random.uniform(0, 0.5))
    process.start()


def pause(process: Process, random: random.Random) -> None:
    process.pause()
    time.sleep(random.uniform(0.5, 3))
    process.go_on()


def kill_owner(world: World, random: random.Random) -> None:
    world.owner.kill()
    time.sleep(random.uniform(0, 0.5))
    world.owner.start()


def pause_owner(world: World, random: random.Random) -> None:
    world.owner.pause()
    time.sleep(random.uniform(0.5, 3))
    world.owner.go_on()


def pull_cable(world: World, random: random.Random) -> None:
    relay = random.choice([*world.relays, world.leaf_relay])
    relay.hold()
    time.sleep(random.uniform(0.5, 3))
    relay.cut()


def restore_backup(world: World, random: random.Random) -> None:
    backup = world.folder / "backup"
    backup.unlink(missing_ok=True)
    with world.writer.lock:
        version = world.owner.back_up(backup)
    time.sleep(random.uniform(0.2, 1))
    with world.writer.lock:
        world.owner.restore(backup, version)


def second_owner(world: World, random: random.Random) -> None:
    """Let a follower hear another model for a while."""
    other = Owner(world.folder / f"other-{time.time_ns()}", world.book)
    with Client(other.address) as client:
        for rate in (0.7, 0.3):
            other.record_step(client.step(learning_rate=rate).version, rate)
    relay = random.choice(world.relays)
    relay.route(other.address)
    relay.cut()
    time.sleep(random.uniform(0.5, 2))
    relay.route(world.owner.address)
    relay.cut()
    other.kill()


def change_branch(world: World, random: random.Random) -> None:
    """Let the leaf follow another follower, which may be behind the one before."""
    world.leaf_relay.route(random.choice(world.middles).address)
    world.leaf_relay.cut()


def slow_reader(world: World, random: random.Random) -> None:
    """Follow without reading."""
    with grpc.insecure_channel(world.owner.address) as channel:
        follow = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Follow(pb.FollowRequest())
        time.sleep(random.uniform(0.5, 2))
        follow.cancel()


Fault = Callable[[World, random.Random], None]
FAULTS: list[Fault] = [
    restore_backup,
    kill_owner,
    kill_follower,
    second_owner,
    pause_follower,
    pause_owner,
    pull_cable,
    change_branch,
    slow_reader,
]


def run(
    folder: Path,
    seconds: float,
    seed: int,
    faults: Sequence[Fault] = FAULTS,
    command: tuple[str, ...] = (),
    *,
    has_front: bool = False,
) -> Counter[str]:
    """Let the faults happen, one after the other, and check what the readers are told.

    Args:
        folder: for the states.
        seconds: how long it goes on; each fault happens once at least.
        seed: of the writes, the readers and the faults.
        faults: what happens, in the order of the first round.
        command: how Python runs a follower.
        has_front: whether there is a native front too.

    Returns:
        How often each fault happened, and the counts of the readers.

    Raises:
        Violation: an answer breaks a promise.
    """
    chance, world = random.Random(seed), World(folder, seed, command, has_front=has_front)
    addresses = [process.address for process in (world.owner, *world.readable)]
    readers = [Reader(addresses, seed + number) for number in range(READERS)]
    counts: Counter[str] = Counter()
    end_time, order = time.monotonic() + seconds, list(faults)
    try:
        while order:
            for fault in order:
                fault(world, chance)
                counts[fault.__name__] += 1
                time.sleep(chance.uniform(0.1, 0.5))
                world.converge()
                with world.writer.lock:
                    for reader in readers:
                        counts["checked"] += reader.check(world.book)
                    newest = world.owner.newest
                    world.book.forget_parameters(world.owner.history, newest)
                if world.writer.error is not None:
                    raise world.writer.error
            order = order if time.monotonic() < end_time else []
            chance.shuffle(order)
    finally:
        for reader in readers:
            reader.stop()
        world.close()
    for reader in readers:
        counts["checked"] += reader.check(world.book)
        counts += reader.counts
    counts["steps"] = world.writer.steps
    if counts["unexpected"]:
        raise Violation(f"{counts['unexpected']} errors that nobody can explain: {counts}")
    return counts


if __name__ == "__main__":
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    if not (has_front := not missing()):
        print(f"without a front: {missing()}")
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary), 60 * minutes, seed=time.time_ns() % 2**32, has_front=has_front)
    for what, count in sorted(found.items()):
        print(f"{what:20} {count:10,}")
    print("every answer was what was written, and no session went back")
