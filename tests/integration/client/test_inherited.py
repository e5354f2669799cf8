"""Tests of what a command inherits: every command, in four locales and with each kind of stdout."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from mnist37_client import Client, Unavailable, health, validation_images
from mnist37_client.cli.group import commands
from mnist37_client.cli.run import COMMANDS
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from PIL import Image
from support import fronted

CLI = (sys.executable, "-P", "-m", "mnist37_client.cli")
# A new command needs a line only if it has to have arguments.
ARGUMENTS = {
    "lesson": ("--copy-only",),
    "export": ("model.safetensors",),
    "import": ("given.safetensors",),
    "predict": ("--show", "--version", "best@1", "three.png"),
    "restore": ("0",),
    "runs": ("1",),
    "tag": ("monday",),
    "token": ("train", "--name", "caf\u00e9"),
    "train": ("2",),
    "serve": ("--device", "cpu", "--state", ":memory:"),
    "web": ("--address", "127.0.0.1:0"),
    "front": ("--address", "127.0.0.1:0"),
    "serve --front": ("--device", "cpu", "--state", ":memory:"),
}
STARTS_RAY = "cluster"  # make test-cluster runs it
# They go on until a signal, and log on stderr.
SERVERS = {"serve", "serve --front", "web", "front"}
FRONTS = {"serve --front", "front"}
LOCALES = {
    "utf-8": {"LC_ALL": "C.UTF-8"},
    "iso-8859-1": {"PYTHONIOENCODING": "iso-8859-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
ENCODINGS = {**{name: name for name in LOCALES}, "C": "ascii"}


class Outcome(NamedTuple):
    """The end of a command: its status, and what it wrote."""

    status: int
    output: bytes
    errors: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the files that the commands read."""
    folder = tmp_path_factory.mktemp("inherited")
    digit = validation_images()[0][0].repeat(5, axis=0).repeat(5, axis=1)
    Image.fromarray(255 - digit).save(folder / "three.png")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LocalServer]:
    """Return a server with a run and a follower, and write its model to a file."""
    with LocalServer("--device", "cpu") as server:
        environment = {**os.environ, "MNIST37_ADDRESS": server.address}
        for arguments in (["train", "2"], ["export", "given.safetensors"]):
            subprocess.run(
                [*CLI, *arguments], env=environment, cwd=folder, check=True, capture_output=True
            )
        with grpc.insecure_channel(server.address) as channel:
            stub: Any = mnist37_pb2_grpc.Mnist37ServiceStub(channel)
            follow = stub.Follow(pb.FollowRequest(id="reader"))
            next(follow)
            yield server
            follow.cancel()


class Runner:
    """Runs one command with a kind of stdout; the methods are the kinds."""

    def __init__(self, command: str, address: str, folder: Path) -> None:
        self.command = command
        self._arguments = [*CLI, *command.split(), *ARGUMENTS.get(command, ())]
        self._address = "127.0.0.1:0" if command.startswith("serve") else address
        self._folder = folder

    def _run(
        self, stdout: int | None, variables: dict[str, str], *, close: bool = False
    ) -> Outcome:
        rest = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MNIST37_", "LC_", "LANG", "PYTHON", "COLUMNS"))
        }
        inherited = {"PYTHONWARNINGS": "error", "MNIST37_ADDRESS": self._address, "TERM": "xterm"}
        inherited["MNIST37_FRONT_OWNER"] = self._address
        arguments = self._arguments
        if self.command == "untag":
            arguments = [*arguments, self._make_tag()]
        if close:
            arguments = ["sh", "-c", 'exec "$@" >&-', "sh", *arguments]
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**rest, **inherited, **variables},
            cwd=self._folder,
        )
        assert process.stderr is not None
        errors = ""
        if self.command in SERVERS:
            started = r" started .*owner=unix:" if self.command == "serve --front" else " started "
            while not re.search(started, errors):
                line = process.stderr.readline()
                assert line, errors
                errors += line
            time.sleep(0.1)
            process.terminate()
        errors += process.communicate(timeout=60)[1]
        return Outcome(process.returncode, b"", errors)

    def _make_tag(self) -> str:
        name = uuid.uuid4().hex[:8] + "-"
        with Client(self._address) as client:
            client.tag_version(name)
        return name

    def piped(self, variables: dict[str, str]) -> Outcome:
        read_fd, write_fd = os.pipe()
        return self._collected(read_fd, write_fd, variables)

    def terminal(self, variables: dict[str, str]) -> Outcome:
        main_fd, terminal_fd = pty.openpty()
        return self._collected(main_fd, terminal_fd, variables)

    def _collected(self, read_fd: int, write_fd: int, variables: dict[str, str]) -> Outcome:
        chunks: list[bytes] = []

        def collect() -> None:
            try:
                while chunk := os.read(read_fd, 65536):
                    chunks.append(chunk)
            except OSError:
                pass  # a terminal that its last user has closed
            os.close(read_fd)

        thread = threading.Thread(target=collect)
        thread.start()
        ended = self._run(write_fd, variables)
        os.close(write_fd)
        thread.join()
        return ended._replace(output=b"".join(chunks))

    def closed(self, variables: dict[str, str]) -> Outcome:
        return self._run(None, variables, close=True)

    def full(self) -> Outcome:
        with Path("/dev/full").open("wb") as full:
            return self._run(full.fileno(), {})

    def gone(self) -> Outcome:
        read_fd, write_fd = os.pipe()
        os.close(read_fd)
        ended = self._run(write_fd, {})
        os.close(write_fd)
        return ended


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    "command", sorted({*commands.commands, *SERVERS} - {STARTS_RAY} if COMMANDS else ())
)
def test_a_command_in_each_locale_and_with_each_kind_of_stdout(
    command: str, server: LocalServer, folder: Path
) -> None:
    if command in FRONTS and (reason := fronted.missing()):
        pytest.skip(reason)
    runner = Runner(command, server.address, folder)
    shown: dict[str, Callable[[dict[str, str]], Outcome]] = {
        **dict.fromkeys(LOCALES, runner.piped),
        "iso-8859-1": runner.terminal,
        "C": runner.closed,
    }
    with ThreadPoolExecutor(4) as threads:
        located = {locale: threads.submit(run, LOCALES[locale]) for locale, run in shown.items()}
        lost = {kind.__name__: threads.submit(kind) for kind in (runner.full, runner.gone)}
    for locale, future in located.items():
        ended = future.result()
        assert (ended.status, said(command, ended)) == (0, ""), locale
        text = ended.output.decode(ENCODINGS[locale])
        assert bool(text.strip()) == (shown[locale] != runner.closed), locale
    statuses = {"full": 1, "gone": 141}
    for kind, future in lost.items():
        ended = future.result()
        if command in SERVERS:  # serving does not depend on it
            assert (ended.status, said(command, ended)) == (0, ""), kind
            continue
        assert ended.status == statuses[kind] or (kind, ended.status) == ("gone", 1), kind
        line = "mnist37: the output cannot be written: No space left on device\n"
        assert ended.errors == (line if kind == "full" else ""), kind


def said(command: str, ended: Outcome) -> str:
    """Return what a command said on stderr beyond what is promised: a server has its log there."""
    if command not in SERVERS:
        return ended.errors
    return "".join(
        line
        for line in ended.errors.splitlines(keepends=True)
        if not any(word in line for word in (" INFO ", " WARNING "))
    )


@pytest.mark.parametrize("name", [b"caf\xe9.png", "\u4e09.png".encode()])
@pytest.mark.parametrize("locale", LOCALES)
def test_a_file_name_that_the_terminal_lacks_is_escaped(
    locale: str, name: bytes, server: LocalServer, folder: Path
) -> None:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    path.write_bytes((folder / "three.png").read_bytes())
    finished = subprocess.run(
        [*CLI, "predict", path],
        env={**os.environ, **LOCALES[locale], "MNIST37_ADDRESS": server.address},
        capture_output=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert finished.stdout.decode(ENCODINGS[locale]).count(": 3 (") == 1


@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=str)
def test_a_demo_that_is_ended_stops_its_server(end: signal.Signals | None, folder: Path) -> None:
    process = subprocess.Popen(
        [*CLI, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("starting a server")
    listening = process.stdout.readline().split()[3].rstrip(",")
    if end is not None:
        process.send_signal(end)
    else:
        process.stdout.close()  # as `| head -2` does
    assert process.wait(30) in ((1, 141) if end is None else (128 + end, -signal.SIGKILL))
    assert process.stderr.read() == ""
    process.stdout.close()
    process.stderr.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            health.check(listening)
        except Unavailable:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_file_that_cannot_be_looked_at_is_named(server: LocalServer, folder: Path) -> None:
    name = "x" * 300  # longer than a name may be; so is a name in a folder that one may not enter
    finished = subprocess.run(
        [*CLI, "predict", name, "three.png"],
        env={**os.environ, "MNIST37_ADDRESS": server.address},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"mnist37: {name}: cannot be read")
    assert "three.png: 3 (" in finished.stdout


def test_signals_that_the_parent_has_blocked_end_a_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    numbers = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        process = subprocess.Popen(
            [*CLI, "loss"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM  # SLOW_IMPORT sleeps for longer


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("command", "status"), [("token train", 1), ("runs --limit x", 2), ("web --address x", 2)]
)
def test_the_status_holds_where_stderr_takes_nothing_either(command: str, status: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            [*CLI, *command.split()], stdout=full, stderr=full, env=environment, check=False
        )
    assert finished.returncode == status


@pytest.mark.parametrize("command", sorted(SERVERS - {"web"}))
def test_a_compiler_that_is_turned_off_is_named(command: str) -> None:
    if command in FRONTS and (reason := fronted.missing()):
        pytest.skip(reason)
    finished = subprocess.run(
        [*CLI, *command.split(), "--address", "127.0.0.1:0"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    line = "NUMBA_DISABLE_JIT: is set, and the kernels run compiled alone; unset it"
    assert (finished.returncode, finished.stderr) == (2, f"mnist37 {command}: {line}\n")


# A memory in which Python and our first lines have room, and the compiler has none.
SMALL_MEMORY = ("prlimit", f"--as={300 * 2**20}")


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs Linux")
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_server_without_memory_says_so_in_one_line(command: str) -> None:
    options = ("--device", "cpu", "--state", ":memory:") if command == "serve" else ()
    finished = subprocess.run(
        [*SMALL_MEMORY, *CLI, command, *options], capture_output=True, text=True, check=False
    )
    assert finished.returncode == (2 if command == "serve" else 3)
    assert "mnist37 serve: the system refuses what the server needs" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


# In the order of a start; Python itself loads some others before our first line.
SHADOWED = [
    *("mnist37_client", "click", "token", "queue", "random", "secrets", "numpy", "grpc", "rich"),
    *("mnist37_server", "platformdirs", "numba", "logging", "sqlite3", "mnist37", "mnist37_protos"),
]


@pytest.mark.parametrize(
    ("variables", "modules"),
    [
        ({}, SHADOWED),
        # pip's own script, which imports mnist37_client, is run with the current folder then.
        ({"PYTHONPATH": f"{os.pathsep}/more"}, SHADOWED[1:]),
    ],
    ids=["", "empty entry"],
)
@pytest.mark.parametrize("arguments", [("loss",), ("demo",), ("serve", "--help")], ids=str)
def test_no_file_of_the_current_folder_is_imported(
    arguments: tuple[str, ...],
    variables: dict[str, str],
    modules: list[str],
    server: LocalServer,
    tmp_path: Path,
) -> None:
    for module in modules:
        (tmp_path / f"{module}.py").write_text("raise SystemExit(f'imported {__file__}')")
    program = Path(sys.executable).with_name("mnist37")
    finished = subprocess.run(
        [program, *arguments],
        env={**os.environ, **variables, "MNIST37_ADDRESS": server.address},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")


# Makes the import of the commands slow, and prints when it begins.
SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "mnist37_client.cli.run":
            print("loading", flush=True)
            time.sleep(20)
sys.meta_path.insert(0, Slow())
"""


def test_ctrl_c_while_the_commands_are_imported_is_no_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    process = subprocess.Popen(
        [*CLI, "loss"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


# Makes the start of a server slow, before its first line, and prints when it begins.
SLOW_START = """
import sys, time
if "mnist37_" + "{module}" in sys.orig_argv:
    print("loading", flush=True)
    time.sleep(1)
"""


@pytest.mark.parametrize("module", ["server", "web", "front"])
def test_ctrl_c_before_the_first_line_of_a_server_is_no_stack_trace(
    module: str, tmp_path: Path
) -> None:
    if module == "front" and (reason := fronted.missing()):
        pytest.skip(reason)
    (tmp_path / "sitecustomize.py").write_text(SLOW_START.format(module=module))
    process = subprocess.Popen(
        [*CLI, "serve" if module == "server" else module],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("command", sorted(SERVERS))
def test_help_that_cannot_be_written_is_one_line(command: str) -> None:
    if command in FRONTS and (reason := fronted.missing()):
        pytest.skip(reason)
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            [*CLI, *command.split(), "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    line = f"mnist37 {command}: the output cannot be written: No space left on device\n"
    assert (finished.returncode, finished.stderr) == (1, line)
