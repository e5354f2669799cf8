"""An owner, its followers, and what can happen to them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
from mnist37_client import Client, Mnist37Error
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from stress.chaos.book import Book, History, Violation, twin_at
from support.relay import Relay
from support.twin import Twin
from support.vitals import family_of

START_SECONDS = 120.0  # on a machine that is very busy
RATES = [0.1, 0.5, 1.0]


class Process:
    """A server process on a port of its own, which can be killed, paused and started again.

    Args:
        options: of `mnist37 serve`, without the address.
        command: how Python runs the server; a test gives one that breaks a promise.
    """

    def __init__(self, options: list[str], command: tuple[str, ...] = ()) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        python = command or ("-m", "mnist37_server")
        self._command = [sys.executable, *python, "--address", self.address, *options]
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def ask(self, request: Any, rpc: str = "GetModel", timeout: float = 1.0) -> Any:
        """Return the answer to a request, or None while the server does not answer it."""
        with grpc.insecure_channel(self.address) as channel:
            method = getattr(mnist37_pb2_grpc.Mnist37ServiceStub(channel), rpc)
            try:
                return method(request, timeout=timeout)
            except grpc.RpcError:
                return None

    def wait_for(self, request: pb.GetModelRequest) -> Any:
        """Return the answer to a request that the server will answer soon."""
        end_time = time.monotonic() + START_SECONDS
        while (answer := self.ask(request)) is None:
            assert time.monotonic() < end_time, f"{self.address} does not answer {request}"
            time.sleep(0.02)
        return answer


class Owner(Process):
    """An owner, whose writes and starts are in the book."""

    def __init__(self, folder: Path, book: Book) -> None:
        self.folder = folder
        self.history = History()
        self.twin = Twin()
        self.newest = 0
        self._book = book
        self._start: int | None = None
        book.write(self.history, 0, self.twin)
        super().__init__(["--device", "cpu", "--state", str(folder)])

    def start(self) -> None:
        """Start the owner, and record its start once it answers."""
        super().start()
        end_time = time.monotonic() + START_SECONDS
        while True:
            with grpc.insecure_channel(self.address) as channel:
                follow = mnist37_pb2_grpc.Mnist37ServiceStub(channel).Follow(pb.FollowRequest())
                try:
                    present = next(follow).starts[0]
                    break
                except grpc.RpcError:
                    assert time.monotonic() < end_time, "the owner does not start"
                    time.sleep(0.02)
        self._book.begin(present.start, present.version, self.history, self._start)
        self._start = present.start

    def record_step(self, version: int, rate: float) -> None:
        """Do with the twin what the owner has done, and record it."""
        assert version == self.newest + 1, f"version {version} after {self.newest}"
        self.twin.step(rate)
        self.newest = version
        self._book.write(self.history, version, self.twin)

    def back_up(self, target: Path) -> int:
        """Copy the database as `sqlite3 .backup` does; return its version."""
        with (
            closing(sqlite3.connect(self.folder / "mnist37.sqlite3")) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        return self.newest

    def restore(self, backup: Path, version: int) -> None:
        """Put a backup in the place of the database while the owner is down, and start it."""
        self.kill()
        for file in self.folder.glob("mnist37.sqlite3*"):
            file.unlink()
        shutil.copy(backup, self.folder / "mnist37.sqlite3")
        self.twin = twin_at(self.history.entries[version])
        self.history, self.newest, self._start = self.history.fork(version), version, None
        self.start()


class Front(Process):
    """A native front: a launcher, and Envoy, which answers."""

    def __init__(self, owner: str) -> None:
        super().__init__(["--owner", owner], ("-m", "mnist37_front"))

    def kill(self) -> None:
        """Kill Envoy and then the launcher, which would end in order."""
        self._signal_envoy(signal.SIGKILL)
        super().kill()

    def pause(self) -> None:
        self._signal_envoy(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal_envoy(signal.SIGCONT)

    def wait_until_not_before(self, position: pb.GetModelResponse) -> None:
        """Wait until the front itself, and not its owner, answers from this version or a later one.

        Args:
            position: has the start and the version.
        """
        request = pb.PredictRequest(
            pixels=bytes(784), start=position.start, min_version=position.version
        )
        end_time = time.monotonic() + START_SECONDS
        while self.ask(request, "Predict") is None:
            assert time.monotonic() < end_time, f"the front does not answer {request}"
            time.sleep(0.02)

    def _signal_envoy(self, number: signal.Signals) -> None:
        for child in family_of(self._process.pid)[1:]:
            with suppress(ProcessLookupError):
                os.kill(child, number)


class Writer:
    """A script that makes Steps, each exactly once, and tells the book."""

    def __init__(self, owner: Owner, seed: int) -> None:
        self._owner = owner
        self._random = random.Random(seed)
        self._must_end = threading.Event()
        self.lock = threading.Lock()  # held while a write is under way
        self.steps = 0
        self.error: BaseException | None = None
        self._client = Client(owner.address, timeout=60)
        self._thread = threading.Thread(target=self._work, name="writer")
        self._thread.start()

    def stop(self) -> None:
        self._must_end.set()
        self._thread.join()
        self._client.close()

    def _work(self) -> None:
        try:
            while not self._must_end.wait(0.01):
                with self.lock:
                    self._write()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error

    def _write(self) -> None:
        rate = self._random.choice(RATES)
        while True:
            try:
                result = self._client.step(learning_rate=rate, request_id=f"step-{self.steps}")
                break
            except Mnist37Error as error:
                if type(error).__name__ != "HistoryLost":  # which a client is told once
                    raise
        self.steps += 1
        self._owner.record_step(result.version, rate)


class World:
    """An owner with two followers, and a leaf that follows one of them; each hears by a relay.

    Args:
        folder: for the states.
        seed: of the writes.
        command: how Python runs a follower.
        has_front: whether there is a native front too.
    """

    def __init__(
        self, folder: Path, seed: int, command: tuple[str, ...] = (), *, has_front: bool = False
    ) -> None:
        self.book = Book()
        self.folder = folder
        self.owner = Owner(folder / "state", self.book)
        self.relays = [Relay(self.owner.address) for _ in range(2)]
        self.middles = [Process(["--follow", relay.address], command) for relay in self.relays]
        for middle in self.middles:
            middle.wait_for(pb.GetModelRequest())
        self.leaf_relay = Relay(self.middles[0].address)
        leaf = Process(["--follow", self.leaf_relay.address], command)
        self.followers = [*self.middles, leaf]
        leaf.wait_for(pb.GetModelRequest())
        self.fronts = []
        if has_front:
            self.relays.append(Relay(self.owner.address))
            self.fronts.append(Front(self.relays[-1].address))
        self.writer = Writer(self.owner, seed)

    @property
    def readable(self) -> list[Process]:
        """Return the processes that answer reads beside the owner."""
        return [*self.followers, *self.fronts]

    def close(self) -> None:
        self.owner.go_on()
        self.writer.stop()
        for process in (self.owner, *self.readable):
            process.go_on()
            process.kill()
        for relay in (*self.relays, self.leaf_relay):
            relay.__exit__()

    def converge(self) -> None:
        """Wait until every follower has the owner's newest version.

        Raises:
            Violation: the model is not the twin's, to the bit.
        """
        with self.writer.lock:
            newest = self.owner.wait_for(pb.GetModelRequest())
            request = pb.GetModelRequest(start=newest.start, min_version=newest.version)
            for follower in self.followers:
                found = follower.wait_for(request)
                expected = self.owner.newest, self.owner.twin.digest
                if not (found.version, found.digest) == (newest.version, newest.digest) == expected:
                    raise Violation(f"{found} and {newest} are not {expected}")
            for front in self.fronts:
                front.wait_until_not_before(newest)
