"""Fixtures of the clients' tests: clients of both kinds, of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mnist37_client import Client
from support.both_clients import AnyClient, BlockingClient, MakeClient


@pytest.fixture(params=["Client", "AsyncClient"])
def make(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Return a function that makes clients of one of the two kinds; close them at the end."""
    clients: list[AnyClient] = []

    def make(*args: Any, **kwargs: Any) -> AnyClient:
        kind = Client if request.param == "Client" else BlockingClient
        clients.append(kind(*args, **kwargs))
        return clients[-1]

    yield make
    for client in clients:
        if isinstance(client, BlockingClient):
            client.stop()
        else:
            client.close()


@pytest.fixture
def caller(make: MakeClient, address: str) -> AnyClient:
    """Return a client of the shared server, after Initialize with seed 42."""
    client = make(address)
    client.initialize()
    return client
