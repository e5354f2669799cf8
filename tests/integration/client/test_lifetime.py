"""Tests of a client in a forked process, at the end of Python, and where it is copied."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mnist37_client import AsyncClient, Client, Mnist37Error
from mnist37_client._rpc import lifetime
from mnist37_client.local_server import LocalServer

HANG_SECONDS = 60  # after which a child counts as one that never ends


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalServer("--device", "cpu") as server:
        yield server.address


def output(program: str, *arguments: str) -> str:
    """Return what a program of Python prints; it must end by itself, with the status 0."""
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * HANG_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stdout


# A process of its own, so that no thread of the tests' gRPC is under way.
FORK = """
import os, sys, threading, time
from mnist37_client import Client, Mnist37Error
client = Client(sys.argv[1], retry_for=1, timeout=10)
client.get_model()
run = watched = predictions = None
if "stream" in sys.argv:
    run = client.train(1_000_000)
    next(run)
    watched = client.watch_run(run.run, follow=True)
    next(watched)
    predictions = client.predict_stream([[0] * 784] * 10)
    next(predictions)
if "threads" in sys.argv:
    def call():
        while True:
            client.get_model()
    for _ in range(3):
        threading.Thread(target=call, daemon=True).start()
child = os.fork()
if not child:
    for attempt in (
        client.get_model,
        lambda: client.train(1),
        lambda: [next(run) for _ in range(1000)],
        lambda: [next(watched) for _ in range(1000)],
        lambda: next(predictions),
        lambda: list(client.predict_stream([[0] * 784])),
    ):
        try:
            attempt()
        except Mnist37Error as error:
            print(error, flush=True)
        except TypeError:
            pass  # there is no such stream
    client.close()
    with Client(sys.argv[1], timeout=10) as own:
        print("own", own.get_model().digest, own.step().version > 0, flush=True)
    os._exit(0)
deadline = time.monotonic() + float(sys.argv[2])
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.05)
print("parent", client.get_model().version > 0, flush=True)
if run is not None:
    print("run", next(run).epoch > 0, flush=True)
    run.cancel()
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["idle", "threads"])
def test_a_client_that_a_fork_has_copied_says_so_and_a_new_one_works(
    kind: str, address: str
) -> None:
    lines = output(FORK, address, str(HANG_SECONDS), kind).splitlines()
    *refused, own, parent = lines
    assert len(refused) == 3
    for line in refused:
        assert line.startswith(f"{address}: the client was made in process ")
        assert line.endswith("make another client in this process")
    assert own.startswith("own ")
    assert parent == "parent True"


def test_the_streams_that_a_fork_has_copied_stay_the_parents(address: str) -> None:
    program = FORK.replace("own.step().version", "1")  # it would wait for the run
    lines = output(program, address, str(HANG_SECONDS), "stream").splitlines()
    *refused, own, parent, run = lines
    assert len(refused) == 6
    assert all("the client was made in process " in line for line in refused)
    assert (own[:4], parent, run) == ("own ", "parent True", "run True")


def test_a_client_in_a_forked_process_shares_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def plain(_target: str, options: list[tuple[str, Any]]) -> None:
        made.append(dict(options))

    with Client("127.0.0.1:1") as client:
        settings = client._settings
        settings.channel(plain, plain, [])
        monkeypatch.setattr(lifetime, "FIRST_PROCESS", os.getppid())
        settings.channel(plain, plain, [])
    assert ["grpc.use_local_subchannel_pool" in options for options in made] == [False, True]


AT_THE_END = """
import sys
from mnist37_client import Client, Mnist37Error
class Holder:
    def __init__(self):
        self.client = Client(sys.argv[1])
        self.client.get_model()
    def __del__(self):
        for call in (self.client.get_model, lambda: self.client.train(1).wait()):
            try:
                call()
            except Mnist37Error as error:
                print(type(error).__name__, error, flush=True)
holder = Holder()
"""


def test_a_call_at_the_end_of_python_is_refused_and_does_not_hang(address: str) -> None:
    line = f"Cancelled {address}: Python is ending; make calls before its end"
    assert output(AT_THE_END, address).splitlines() == [line] * 2


def test_calls_at_exit_work(address: str) -> None:
    program = (
        "import atexit, sys; from mnist37_client import Client; client = Client(sys.argv[1])\n"
        "atexit.register(lambda: print(client.get_model().version >= 0))"
    )
    assert output(program, address) == "True\n"


@pytest.mark.parametrize("method", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_has_connections_is_not_copied(
    method: Callable[[object], object], address: str
) -> None:
    with Client(address) as client, client.train(1) as run:
        for thing in (client, AsyncClient(address), run):
            with pytest.raises(Mnist37Error, match="can be neither pickled nor copied"):
                method(thing)
        run.wait()
        progress, model = run.progress, client.get_model()
    assert pickle.loads(pickle.dumps(progress)) == progress
    assert pickle.loads(pickle.dumps(model)).digest == model.digest
