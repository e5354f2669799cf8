"""A real server for the tests to talk to: one of their own, or the one at MNIST37_ADDRESS."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from mnist37_client import Client
from mnist37_client.local_server import LocalServer


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of a server that the tests share: what a test needs of the model's state, it sets itself."""
    if "MNIST37_ADDRESS" in os.environ:
        yield os.environ["MNIST37_ADDRESS"]
        return
    with LocalServer() as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of the shared server, its parameters freshly drawn from seed 42."""
    with Client(address) as client:
        client.initialize()
        yield client


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of the test's own, at version 0."""
    with LocalServer("--device", "cpu") as server:
        yield server
