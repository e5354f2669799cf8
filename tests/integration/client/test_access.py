"""Tests of a client's checks before it connects: combinations, files, and where a token may go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mnist37_client import AsyncClient, Client, InvalidInput

SECRET = "a-token-that-is-nobody-s"
REMOTE = "192.0.2.1:50051"


def make_async(*args: Any, **kwargs: Any) -> AsyncClient:
    async def make() -> AsyncClient:
        async with AsyncClient(*args, **kwargs) as client:
            return client

    return asyncio.run(make())


BOTH = pytest.mark.parametrize("make", [Client, make_async])
Make = Callable[..., object]


@BOTH
@pytest.mark.parametrize(
    "address", [REMOTE, "localhost.example.org:1", "127.0.0.1.example.org:1", "[2001:db8::1]:1"]
)
def test_a_token_does_not_go_to_another_machine_in_plain_text(
    make: Make, address: str, pki: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"token: would go to .* in plain text") as said:
        make(address, token=SECRET)
    assert SECRET not in str(said.value)
    make(address, token=SECRET, insecure=True)
    make(address, token=SECRET, tls_ca=pki / "ca.pem")
    make(address, token=SECRET, tls_ca="public")


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_a_token_may_go_to_loopback_in_plain_text(make: Make, host: str) -> None:
    make(f"{host}:50051", token=SECRET)


@BOTH
@pytest.mark.parametrize("token", ["", "two words", "a-line\n", "ümlaut", "\x7f"])
def test_an_invalid_token_is_refused_and_not_in_the_message(make: Make, token: str) -> None:
    with pytest.raises(InvalidInput, match=r"^token: must be printable ASCII") as said:
        make(token=token)
    assert not token or token not in str(said.value)


@BOTH
@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tls_cert": "client.pem", "tls_key": "client.key"}, "tls_cert: needs tls_ca"),
        ({"tls_server_name": "localhost"}, "tls_server_name: needs tls_ca"),
        ({"tls_ca": "ca.pem", "tls_cert": "client.pem"}, "tls_cert: needs tls_key too"),
        ({"tls_ca": "ca.pem", "tls_key": "client.key"}, "tls_key: needs tls_cert too"),
        ({"tls_ca": "none"}, "tls_ca: cannot read .*none: No such file"),
        ({"tls_ca": "garbage"}, "tls_ca: .*garbage holds no certificate in PEM"),
        ({"tls_ca": b"garbage"}, "tls_ca: got bytes that hold no certificate in PEM"),
        (
            {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "client.pem"},
            "tls_key: .*client.pem holds no private key in PEM",
        ),
    ],
)
def test_the_error_names_an_invalid_tls_setting(
    make: Make, pki: Path, given: dict[str, str | bytes], match: str
) -> None:
    files = {
        name: pki / value if isinstance(value, str) and name != "tls_server_name" else value
        for name, value in given.items()
    }
    with pytest.raises(InvalidInput, match=match):
        make(**files)


def test_a_client_does_not_show_its_token() -> None:
    with Client(token=SECRET) as client:
        shown = [client, vars(client)]
        shown += [vars(part) for part in vars(client).values() if hasattr(part, "__dict__")]
        assert SECRET not in repr(shown)
