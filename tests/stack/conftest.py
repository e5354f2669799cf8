"""Fixtures of the stack's tests: the stack, and a client of its server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mnist37_client import Client
from support.live_stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Return a stack whose server has answered; the other programs may still be starting."""
    with running_stack() as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """Return a client of the stack's server.

    Other clients write to the server too, so a test cannot rely on its state or version.
    """
    with Client(stack.address) as client:
        yield client
