"""The stack that these tests are about, and a client of its server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mnist37_client import Client
from support.live_stack import Stack, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Its server has answered; the others are at work, or about to be."""
    with running() as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """Of its server. Others write to it too, so nothing is set, and no version is known."""
    with Client(stack.address) as client:
        yield client
