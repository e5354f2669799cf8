"""An owner and a follower that tests share, and what tests of followers need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.following import Server


@pytest.fixture(scope="session")
def owner() -> Iterator[Server]:
    """Return an owner with some versions and a run, which no test stops."""
    with Server("--device", "cpu", "--metrics-address", "127.0.0.1:0") as server:
        server.train(epochs=3)
        yield server


@pytest.fixture(scope="session")
def follower(owner: Server) -> Iterator[Server]:
    """Return a follower of this owner."""
    with Server("--follow", owner.address, "--metrics-address", "127.0.0.1:0") as server:
        server.wait_until_serving()
        yield server
