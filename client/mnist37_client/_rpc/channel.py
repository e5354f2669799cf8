"""How a client comes in: over TLS or in plain text, with a certificate or a token of its own."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from mnist37_client.errors import InvalidInput

Pem = str | Path | bytes  # a file's path, or what such a file holds

CERTIFICATE = "certificate in PEM"
PRIVATE_KEY = "private key in PEM without a passphrase"
BEGINS = {
    CERTIFICATE: b"-----BEGIN CERTIFICATE-----",
    PRIVATE_KEY: b"-----BEGIN (RSA |EC )?PRIVATE KEY-----",
}

PUBLIC = "public"  # as tls_ca: the authorities that gRPC itself comes with

C = TypeVar("C")
S = TypeVar("S")


class ConnectionSettings:
    """What the arguments of a client ask for, checked.

    Args:
        address: HOST:PORT of the server.
        tls_ca: the authority that signed the server's certificate; None: plain text.
        tls_cert: the client's own certificate, for a server that asks for one.
        tls_key: its private key.
        tls_server_name: the name in the server's certificate, where it is not the address's.
        token: goes with every call.
        insecure: send the token in plain text even to another machine.

    Raises:
        InvalidInput: a file cannot be read, or an argument lacks another.
    """

    def __init__(
        self,
        address: str,
        tls_ca: Pem | None,
        tls_cert: Pem | None,
        tls_key: Pem | None,
        tls_server_name: str | None,
        token: str | None,
        insecure: bool,
    ) -> None:
        self._address = address
        self._options: list[tuple[str, str | int]] = []
        self._credentials = _credentials(tls_ca, tls_cert, tls_key, tls_server_name)
        self._token = token
        if tls_server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", tls_server_name))
        here = is_loopback(address)
        if here:
            # gRPC would ask a proxy for it, where the environment names one.
            self._options.append(("grpc.enable_http_proxy", 0))
        if token is None:
            return
        if not re.fullmatch(r"[!-~]+", token):
            raise InvalidInput("token: must be printable ASCII without spaces, as it was made")
        if self._credentials is None and not here and not insecure:
            raise InvalidInput(
                f"token: would go to {address} in plain text; give tls_ca, or insecure if nobody"
                " can listen in"
            )

    def channel(
        self,
        plain: Callable[..., C],
        secure: Callable[..., C],
        options: list[tuple[str, int]],
    ) -> C:
        """A channel that one of grpc's two functions makes."""
        if self._credentials is None:
            return plain(self._address, options=[*options, *self._options])
        return secure(self._address, self._credentials, options=[*options, *self._options])

    def stub(self, stub: S) -> S:
        """The stub, whose calls bring the token.

        They bring it as metadata: call credentials would cost a thread for each call.
        """
        if self._token is not None:
            metadata = (("authorization", f"Bearer {self._token}"),)
            for name, call in vars(stub).items():
                setattr(stub, name, _with_metadata(call, metadata))
        return stub


def _with_metadata(
    call: Callable[..., C], metadata: tuple[tuple[str, str], ...]
) -> Callable[..., C]:
    # Not a partial, which would show the token where it is printed.
    def with_metadata(*request: object, **options: object) -> C:
        return call(*request, metadata=metadata, **options)

    return with_metadata


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is on this machine, as far as HOST alone tells."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(
    ca: Pem | None, certificate: Pem | None, key: Pem | None, server_name: str | None
) -> grpc.ChannelCredentials | None:
    if (certificate is None) != (key is None):
        given, missing = ("tls_key", "tls_cert") if certificate is None else ("tls_cert", "tls_key")
        raise InvalidInput(f"{given}: needs {missing} too")
    if ca is None:
        for name, value in (("tls_cert", certificate), ("tls_server_name", server_name)):
            if value is not None:
                raise InvalidInput(f"{name}: needs tls_ca, which turns TLS on")
        return None
    return grpc.ssl_channel_credentials(
        None if ca == PUBLIC else _read_pem("tls_ca", ca, CERTIFICATE),
        None if key is None else _read_pem("tls_key", key, PRIVATE_KEY),
        None if certificate is None else _read_pem("tls_cert", certificate, CERTIFICATE),
    )


def _read_pem(name: str, given: Pem, kind: str) -> bytes:
    """What a file holds, or what was given in its place."""
    if isinstance(given, bytes):
        content, where = given, "got bytes that hold"
    else:
        try:
            content, where = Path(given).read_bytes(), f"{given} holds"
        except OSError as error:
            raise InvalidInput(f"{name}: cannot read {given}: {error.strerror}") from error
    # gRPC says only that it cannot connect.
    if not re.search(BEGINS[kind], content):
        raise InvalidInput(f"{name}: {where} no {kind}")
    return content
