"""Fixtures of the tests of `mnist37 web`: a web of the shared server, and tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mnist37_client.local_server import LocalServer
from support.local_web import LocalWeb, WebCaller

TRAIN, PREDICT = "train-token-of-a-test", "predict-token-of-a-test"


@pytest.fixture(scope="session")
def web(address: str) -> Iterator[LocalWeb]:
    """Return a web of the shared server, without a token."""
    with LocalWeb(address) as web:
        yield web


class Guarded(NamedTuple):
    """A server with tokens, and a web that has one of role train."""

    server: LocalServer
    web: WebCaller
    tokens: Path

    def allow(self, **roles: str) -> None:
        """Write the file of tokens: a role for each name; the token is NAME-token-of-a-test."""
        self.tokens.write_text(
            "".join(
                f"{role} {hashlib.sha256(f'{name}-token-of-a-test'.encode()).hexdigest()}\n"
                for name, role in roles.items()
            )
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Start a server that requires tokens, and a web whose page has one of role train."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    found = Guarded(None, None, tokens)  # type: ignore[arg-type]
    found.allow(train="train", predict="predict")
    with (
        LocalServer("--device", "cpu", "--tokens", str(tokens)) as server,
        LocalWeb(server.address, "--token", TRAIN) as web,
    ):
        yield Guarded(server, web, tokens)
