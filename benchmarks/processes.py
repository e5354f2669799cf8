"""Separate processes, each pinned to some cores: servers, and workers that measure."""

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
SERVER = {CORES[0]}  # for the server that is measured
LOAD = {CORES[-1]}  # for its clients; equal to SERVER where there is only one core
BOTH = SERVER | LOAD

ROOT = Path(__file__).parents[1]
LISTENING = "listening on "
SPAWN = multiprocessing.get_context("spawn")


def require_two_cores() -> None:
    """Raise MissingRequirement unless this process may use two cores."""
    if len(BOTH) < 2:
        raise MissingRequirement("needs two cores")


@cache
def cuda_name() -> str | None:
    """Return the name of the CUDA device, or None where there is none.

    A separate process asks torch, because the first use of a device allocates memory on it.
    """
    query = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else '')"
    process = subprocess.run(
        [sys.executable, "-c", query], check=True, stdout=subprocess.PIPE, text=True
    )
    return process.stdout.strip() or None


def require_cuda() -> None:
    """Raise MissingRequirement unless there is a CUDA device."""
    if cuda_name() is None:
        raise MissingRequirement("needs a CUDA device; none here")


@contextmanager
def pinned_to(cores: Set[int]) -> Iterator[None]:
    """Pin this thread to some cores, and with it each process that it starts inside the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def temporary_folder(disk: Path) -> Iterator[Path]:
    """Create a temporary folder on a disk, for a state or a raw file, and delete it at the end."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=disk) as name:
        yield Path(name)


class Server:
    """A server in its own process. The constructor waits until the server is ready.

    Args:
        module: the module to run as a program. It prints "listening on HOST:PORT" when it is ready.
        options: the options of that program.
        cores: the cores that the process is pinned to.

    Raises:
        RuntimeError: the server did not start. Its log was written to stderr.
    """

    def __init__(self, module: str, *options: str, cores: Set[int] = SERVER) -> None:
        # The shell's MNIST37_... variables must not configure the server that is measured.
        environment = {name: value for name, value in os.environ.items() if "MNIST37" not in name}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - stop() closes it
        with pinned_to(cores):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(LISTENING):
            self.stop()
            raise RuntimeError(f"{module} did not start")
        self.address = line.removeprefix(LISTENING).strip()

    def stop(self) -> None:
        """Shut the server down and, if it failed, copy its log to stderr."""
        self._process.terminate()
        self._process.communicate()
        if self._process.returncode not in (0, -15):
            self._log.seek(0)
            sys.stderr.write(self._log.read())
        self._log.close()


@contextmanager
def server(module: str, *options: str, cores: Set[int] = SERVER) -> Iterator[Server]:
    """Start a server and stop it at the end."""
    process = Server(module, *options, cores=cores)
    try:
        yield process
    finally:
        process.stop()


def mnist37(
    *flags: str,
    state: str | Path = ":memory:",
    cores: Set[int] = SERVER,
    module: str = "mnist37_server",
) -> AbstractContextManager[Server]:
    """Start an mnist37 server on the CPU and stop it at the end.

    Args:
        flags: further flags of `mnist37 serve`.
        state: the state folder, or ":memory:".
        cores: the cores that the process is pinned to.
        module: the module to run as a program.
    """
    options = ("--address", "127.0.0.1:0", "--device", "cpu", "--state", str(state), *flags)
    return server(module, *options, cores=cores)


class Worker:
    """A fresh process that measures on request.

    Args:
        cores: the cores that the process is pinned to.
        prepare: a module-level function. The process calls it once; it returns the measurement.
        arguments: the arguments of `prepare`.
    """

    def __init__(
        self, cores: Set[int], prepare: Callable[..., Measure], *arguments: object
    ) -> None:
        self._connection, remote = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_work, args=(remote, prepare, arguments), daemon=True)
        with pinned_to(cores):
            self._process.start()
        remote.close()
        try:
            self.result()  # wait until `prepare` has returned
        except BaseException:
            self.stop()
            raise

    def begin(self, seconds: float) -> None:
        """Start a measurement of about so many seconds; `result` waits for its value."""
        self._connection.send(seconds)

    def result(self) -> float:
        """Wait for the measurement and return its value, or raise its exception."""
        result = self._connection.recv()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, float)
        return result

    def __call__(self, seconds: float) -> float:
        self.begin(seconds)
        return self.result()

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


@contextmanager
def worker(
    cores: Set[int], prepare: Callable[..., Measure], *arguments: object
) -> Iterator[Worker]:
    """Start a worker and stop it at the end."""
    process = Worker(cores, prepare, *arguments)
    try:
        yield process
    finally:
        process.stop()


def _work(
    connection: Connection, prepare: Callable[..., Measure], arguments: tuple[object, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    measure: Measure | None = None
    with suppress(EOFError, BrokenPipeError):  # the parent closed the connection
        while True:
            seconds = 0.0 if measure is None else connection.recv()
            result: float | Exception
            try:
                if measure is None:
                    measure, result = prepare(*arguments), 0.0
                else:
                    result = measure(seconds)
            except Exception as error:  # noqa: BLE001 - raised again in the parent process
                result = error
            connection.send(result)
            if measure is None:
                return
