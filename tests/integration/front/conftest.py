"""Fixtures that put a native front before each server of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mnist37_client.local_server import LocalServer
from support.fronted import FrontedServer, missing


@pytest.fixture(scope="session", autouse=True)
def needs_a_front() -> None:
    """Skip the tests where a front cannot run: Python may have no shared library."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Return the address of a front that the tests share."""
    with FrontedServer() as server:
        yield server.address


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Start a server and its front for one test, at version 0."""
    with FrontedServer("--device", "cpu") as server:
        yield server
