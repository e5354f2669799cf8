"""Fixtures that put a native front before each server of the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from integration.web.conftest import TRAIN, Guarded
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from support.fronted import FrontedServer, FrontedWeb, missing
from support.guarding import secret, token_file
from support.local_web import Reply, WebCaller

BLANK = np.zeros(784, np.uint8)


class UpToDateWeb(WebCaller):
    """The HTTP API of a front, asked when the front has the newest version.

    A front is some milliseconds behind its owner; the tests expect what they have just written.
    """

    def __init__(self, server: LocalServer, client: Client) -> None:
        super().__init__(f"http://{server.address}")
        self.process = server.process
        self._client = client

    def request(self, *arguments: Any, **options: Any) -> Reply:
        """Send a request and return the reply."""
        self._client.get_model()  # the owner answers; so the next read is no older
        self._client.predict(BLANK)
        return super().request(*arguments, **options)


@pytest.fixture(scope="session", autouse=True)
def needs_a_front() -> None:
    """Skip the tests where a front cannot run: Python may have no shared library."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def fronted() -> Iterator[LocalServer]:
    """Start a server and its front that the tests share."""
    with FrontedServer() as server:
        yield server
        status, log = server.stop()
    assert status == 0
    assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:4_000]


@pytest.fixture(scope="session")
def address(fronted: LocalServer) -> str:
    """Return the address of a front that the tests share."""
    return fronted.address


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Start a server and its front for one test, at version 0."""
    with FrontedServer("--device", "cpu") as server:
        yield server


@pytest.fixture(scope="session")
def web(fronted: LocalServer) -> Iterator[UpToDateWeb]:
    """Return the page and the HTTP API of the shared front."""
    with Client(fronted.address) as client:
        yield UpToDateWeb(fronted, client)


class GuardedByFront(Guarded):
    """A server with tokens, and a front whose page has one of role train."""

    def allow(self, **roles: str) -> None:
        """Write the file of tokens: a role for each name, and the front's own token."""
        super().allow(**roles)
        digest = hashlib.sha256(secret("follow").encode()).hexdigest()
        with self.tokens.open("a") as file:
            file.write(f"follow {digest}\n")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Start a server that requires tokens, and a front whose page has one of role train."""
    folder = tmp_path_factory.mktemp("tokens")
    page_token = folder / "page-token"
    page_token.write_text(TRAIN)
    tokens = folder / "tokens"
    found = GuardedByFront(None, None, tokens)  # type: ignore[arg-type]
    found.allow(train="train", predict="predict")
    options = {
        "--tokens": tokens,
        "--owner-token-file": token_file(folder, "follow"),
        "--page-token-file": page_token,
    }
    flags = [str(part) for option in options.items() for part in option]
    with (
        LocalServer("--device", "cpu", "--tokens", str(tokens)) as server,
        FrontedWeb(server.address, *flags) as web,
    ):
        yield GuardedByFront(server, web, tokens)
