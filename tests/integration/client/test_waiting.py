"""Tests of what a caller is told while its write waits for a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from mnist37_client import Client, DeadlineExceeded
from mnist37_client.local_server import LocalServer
from support.both_clients import (
    ENDLESS_EPOCHS,
    AnyClient,
    MakeClient,
    assert_no_run,
    new_request_id,
)

WAITED = (
    rf"did not answer within the timeout; it waited for run \d+ \(epoch \d+ of {ENDLESS_EPOCHS}\)$"
)

WRITES: dict[str, Callable[[AnyClient], object]] = {
    "step": lambda client: client.step(),
    "initialize": lambda client: client.initialize(),
    "restore": lambda client: client.restore(0),
    "import_model": lambda client: client.import_model([0.0] * 784, 0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_comes_too_late_says_which_run_it_waited_for(
    make: MakeClient, client: Client, write: Callable[[AnyClient], object]
) -> None:
    hasty = make(client.address, timeout=0.3)
    with client.train(ENDLESS_EPOCHS) as run:
        next(run)
        with pytest.raises(DeadlineExceeded, match=WAITED):
            write(hasty)
    assert_no_run(client)


def test_a_run_says_which_run_it_waits_for(make: MakeClient, client: Client) -> None:
    with client.train(ENDLESS_EPOCHS) as ahead:
        next(ahead)
        with make(client.address).train(3) as run:
            found = run.waits_for()
            assert found is not None
            (running,) = client.runs(state="running")
            assert (found.run, found.epochs) == (running.run, ENDLESS_EPOCHS)
            assert found.position.startswith(f"run {found.run} (epoch ")
            ahead.cancel()
            next(run)
            assert run.waits_for() is None
            assert run.wait().epoch == 3
            assert run.waits_for() is None


def test_a_run_does_not_wait_for_itself(make: MakeClient, client: Client) -> None:
    # A second caller of one request_id joins the run.
    name = new_request_id()
    with client.train(ENDLESS_EPOCHS, request_id=name) as first:
        next(first)
        with make(client.address).train(ENDLESS_EPOCHS, request_id=name) as second:
            assert second.waits_for() is None


@pytest.fixture(scope="module")
def busy() -> Iterator[Client]:
    """Return a client whose endless run is the first of its server."""
    with (
        LocalServer("--device", "cpu") as server,
        Client(server.address) as client,
        client.train(ENDLESS_EPOCHS) as run,
    ):
        next(run)
        yield client


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_train_says_which_run_it_waits_for(busy: Client, options: list[str]) -> None:
    command = [sys.executable, "-m", "mnist37_client.cli", "train", "2", *options]
    process = subprocess.Popen(
        [*command, "--address", busy.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        told = process.stderr if options else process.stdout
        assert told is not None
        *_, line = islice(told, 1)
        assert line.startswith("waits for run 1 (epoch ")
        assert line.endswith(f" of {ENDLESS_EPOCHS})\n")
        process.kill()
