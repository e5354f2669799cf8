"""Tests of a run whose client loses the connection: it goes on, and its progress is complete."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from mnist37_client.local_server import LocalServer
from support.both_clients import MakeClient
from support.relay import Relay


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with LocalServer("--device", "cpu") as server, Relay(server.address) as relay:
        yield relay


def follow(make: MakeClient, relay: Relay, epochs: int) -> list[int]:
    """Return the epochs of a run whose connection is cut once, with answers on their way."""
    run = make(relay.address).train(epochs)
    seen = [next(run).epoch]
    relay.hold()
    time.sleep(0.25)  # the server commits epochs whose messages are lost
    relay.cut()
    return [*seen, *(progress.epoch for progress in run)]


def test_each_epoch_comes_once_though_the_connection_is_cut(make: MakeClient, relay: Relay) -> None:
    assert follow(make, relay, 400) == list(range(1, 401))


def test_a_long_run_may_miss_epochs_but_never_its_last(make: MakeClient, relay: Relay) -> None:
    # The server retains a part of the epochs of a run that has more than 1,000.
    seen = follow(make, relay, 1100)
    assert seen[-1] == 1100
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))
    assert len(seen) > 700
