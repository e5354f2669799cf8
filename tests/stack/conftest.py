"""Fixtures of the stack's tests: the stack, and the clients of its servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mnist37_client import Client
from support.live_stack import Stack, running_stack

READERS = ("server", "followers", "front")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Return a stack whose servers have answered; the other programs may still be starting."""
    with running_stack() as stack:
        yield stack


@pytest.fixture(params=READERS)
def client(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Return a client that reads from the server, from its followers, or through the front.

    Other clients write to the server too, so a test cannot rely on its state or version.
    """
    address = stack.address if request.param != "front" else stack.front
    if address is None:
        pytest.skip("a front cannot run here")
    replicas = stack.replicas if request.param == "followers" else None
    with Client(address, replicas=replicas) as client:
        yield client


@pytest.fixture
def owner(stack: Stack) -> Iterator[Client]:
    """Return a client of the server that owns the model."""
    with Client(stack.address) as owner:
        yield owner
