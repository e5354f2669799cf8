"""Processes of one's own, each held to some cores: servers, and workers that measure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.harness import Measure, MissingRequirement

CORES = sorted(os.sched_getaffinity(0))
SERVER = {CORES[0]}  # what is measured
LOAD = {CORES[-1]}  # what loads it; the same core where there is but one
BOTH = SERVER | LOAD

ROOT = Path(__file__).parents[1]
LISTENING = "listening on "
SPAWN = multiprocessing.get_context("spawn")


def require_two_cores() -> None:
    """Raises MissingRequirement on a machine of one."""
    if len(BOTH) < 2:
        raise MissingRequirement("needs two cores")


@cache
def cuda_name() -> str | None:
    """What the CUDA device is called; None where there is none.

    Asked in a process of its own: to begin using a device takes memory of it.
    """
    ask = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else '')"
    asked = subprocess.run(
        [sys.executable, "-c", ask], check=True, stdout=subprocess.PIPE, text=True
    )
    return asked.stdout.strip() or None


def require_cuda() -> None:
    """Raises MissingRequirement on a machine without."""
    if cuda_name() is None:
        raise MissingRequirement("needs a CUDA device; none here")


@contextmanager
def pinned_to(cores: Set[int]) -> Iterator[None]:
    """Holds this thread to some cores, and with it each process that it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def temporary_folder(disk: Path) -> Iterator[Path]:
    """For a state or a raw file, somewhere on a disk; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=disk) as name:
        yield Path(name)


class Server:
    """A server in a process of its own; it is ready when the object is made.

    Args:
        module: is run as a program, and prints "listening on HOST:PORT" when it is ready.
        options: of that program.
        cores: that it is held to.

    Raises:
        RuntimeError: it did not start; what it logged is on stderr.
    """

    def __init__(self, module: str, *options: str, cores: Set[int] = SERVER) -> None:
        # A MNIST37_... of this shell's is not for the server that is measured.
        bare = {name: value for name, value in os.environ.items() if "MNIST37" not in name}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when it has ended
        with pinned_to(cores):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=ROOT,
                env=bare,
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(LISTENING):
            self.stop()
            raise RuntimeError(f"{module} did not start")
        self.address = line.removeprefix(LISTENING).strip()

    def stop(self) -> None:
        """Ends it in order; shows what it logged if that went wrong."""
        self._process.terminate()
        self._process.communicate()
        if self._process.returncode not in (0, -15):
            self._log.seek(0)
            sys.stderr.write(self._log.read())
        self._log.close()


@contextmanager
def server(module: str, *options: str, cores: Set[int] = SERVER) -> Iterator[Server]:
    """A server for a while."""
    started = Server(module, *options, cores=cores)
    try:
        yield started
    finally:
        started.stop()


def mnist37(
    *flags: str,
    state: str | Path = ":memory:",
    cores: Set[int] = SERVER,
    module: str = "mnist37_server",
) -> AbstractContextManager[Server]:
    """A server of the model on the CPU for a while, with further flags of `mnist37 serve`."""
    options = ("--address", "127.0.0.1:0", "--device", "cpu", "--state", str(state), *flags)
    return server(module, *options, cores=cores)


class Worker:
    """A fresh process that measures when it is told to.

    Args:
        cores: that it is held to.
        prepare: a function of a module; called in the process, it returns what measures.
        arguments: of `prepare`.
    """

    def __init__(
        self, cores: Set[int], prepare: Callable[..., Measure], *arguments: object
    ) -> None:
        self._connection, there = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_work, args=(there, prepare, arguments), daemon=True)
        with pinned_to(cores):
            self._process.start()
        there.close()
        try:
            self.result()  # it is prepared
        except BaseException:
            self.stop()
            raise

    def begin(self, seconds: float) -> None:
        """Lets it measure; `result` waits for the outcome."""
        self._connection.send(seconds)

    def result(self) -> float:
        """What it found; raises what it raised."""
        result = self._connection.recv()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, float)
        return result

    def __call__(self, seconds: float) -> float:
        self.begin(seconds)
        return self.result()

    def stop(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()


@contextmanager
def worker(
    cores: Set[int], prepare: Callable[..., Measure], *arguments: object
) -> Iterator[Worker]:
    """A worker for a while."""
    started = Worker(cores, prepare, *arguments)
    try:
        yield started
    finally:
        started.stop()


def _work(
    connection: Connection, prepare: Callable[..., Measure], arguments: tuple[object, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began it ends it
    measure: Measure | None = None
    with suppress(EOFError, BrokenPipeError):  # nobody asks any more
        while True:
            seconds = 0.0 if measure is None else connection.recv()
            result: float | Exception
            try:
                if measure is None:
                    measure, result = prepare(*arguments), 0.0
                else:
                    result = measure(seconds)
            except Exception as error:  # noqa: BLE001 - raised again in the process that asked
                result = error
            connection.send(result)
            if measure is None:
                return
