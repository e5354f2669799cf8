"""Clients of both kinds, of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mnist37_client import Client
from support.both_clients import AnyClient, BlockingClient, MakeClient


@pytest.fixture(params=["Client", "AsyncClient"])
def make(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes clients of one of the two kinds, and closes them in the end."""
    made: list[AnyClient] = []

    def make(*args: Any, **kwargs: Any) -> AnyClient:
        kind = Client if request.param == "Client" else BlockingClient
        made.append(kind(*args, **kwargs))
        return made[-1]

    yield make
    for client in made:
        if isinstance(client, BlockingClient):
            client.stop()
        else:
            client.close()


@pytest.fixture
def caller(make: MakeClient, address: str) -> AnyClient:
    """Of the shared server, its parameters freshly drawn from seed 42."""
    client = make(address)
    client.initialize()
    return client
