"""The connection of a client: TLS or plain text, with a certificate or a token."""

from __future__ import annotations

import ipaddress
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc

from mnist37_client._rpc.address import UNIX, check_address
from mnist37_client.bounded_file import read_bounded
from mnist37_client.errors import InvalidInput, one_line

Pem = str | Path | bytes  # a file's path, or the content of such a file

CERTIFICATE = "certificate in PEM"
PRIVATE_KEY = "private key in PEM without a passphrase"
PEM_HEADERS = {
    CERTIFICATE: b"-----BEGIN CERTIFICATE-----",
    PRIVATE_KEY: b"-----BEGIN (RSA |EC )?PRIVATE KEY-----",
}

PUBLIC = "public"  # as tls_ca: the authorities that gRPC brings

C = TypeVar("C")
S = TypeVar("S")


class ConnectionSettings:
    """The settings of a connection, checked.

    Args:
        address: HOST:PORT of the server.
        tls_ca: the authority that signed the server's certificate; None means plain text.
        tls_cert: the client's own certificate, if the server requires one.
        tls_key: the private key of tls_cert.
        tls_server_name: the name in the server's certificate, if it differs from the name in the
            address.
        token: the token to send with every call.
        insecure: send the token to another machine in plain text too.

    Raises:
        InvalidInput: a file cannot be read, or an argument needs another one.
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
        self.address = check_address(address)
        self._options: list[tuple[str, str | int]] = []
        self._credentials = _credentials(tls_ca, tls_cert, tls_key, tls_server_name)
        self._token = token
        if tls_server_name is not None:
            if not isinstance(tls_server_name, str) or not tls_server_name.isprintable():
                got = reprlib.repr(tls_server_name)
                raise InvalidInput(f"tls_server_name: got {got}; must be a host's name")
            self._options.append(("grpc.ssl_target_name_override", tls_server_name))
        is_local = is_this_machine(address)
        if is_local:
            # Otherwise gRPC would use the proxy that the environment names, if there is one.
            self._options.append(("grpc.enable_http_proxy", 0))
        if token is None:
            return
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise InvalidInput(
                "token: must be printable ASCII without spaces, as `mnist37 token` prints it"
            )
        if self._credentials is None and not is_local and not insecure:
            raise InvalidInput(
                f"token: would go to {address} in plain text; give tls_ca, or insecure if you"
                " trust the network"
            )

    def channel(
        self,
        plain: Callable[..., C],
        secure: Callable[..., C],
        options: list[tuple[str, int]],
    ) -> C:
        """Return a channel that one of grpc's two functions makes."""
        if self._credentials is None:
            return plain(self.address, options=[*options, *self._options])
        return secure(self.address, self._credentials, options=[*options, *self._options])

    def stub(self, stub: S) -> S:
        """Return the stub, whose calls now send the token.

        They send it as metadata: call credentials would cost a thread for each call.
        """
        if self._token is not None:
            metadata = (("authorization", f"Bearer {self._token}"),)
            for name, call in vars(stub).items():
                setattr(stub, name, _with_metadata(call, metadata))
        return stub


def _with_metadata(
    call: Callable[..., C], metadata: tuple[tuple[str, str], ...]
) -> Callable[..., C]:
    # Not a functools.partial: its repr would show the token.
    def with_metadata(*request: object, **options: object) -> C:
        return call(*request, metadata=metadata, **options)

    return with_metadata


def is_this_machine(address: str) -> bool:
    """Return whether an address leads to this machine: localhost, a loopback address or a socket.

    0.0.0.0 and [::], on which a server listens, lead a client to this machine too.
    """
    if address.startswith(UNIX):
        return True
    host = re.sub("^(dns|ipv4|ipv6):(//[^/]*/)?", "", address).rpartition(":")[0]
    host = host.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_unspecified


def _credentials(
    ca: Pem | None, certificate: Pem | None, key: Pem | None, server_name: str | None
) -> grpc.ChannelCredentials | None:
    if (certificate is None) != (key is None):
        argument, counterpart = (
            ("tls_key", "tls_cert") if certificate is None else ("tls_cert", "tls_key")
        )
        raise InvalidInput(f"{argument}: needs {counterpart} too")
    if ca is None:
        for name, value in (("tls_cert", certificate), ("tls_server_name", server_name)):
            if value is not None:
                raise InvalidInput(f"{name}: needs tls_ca, which turns TLS on")
        return None
    return grpc.ssl_channel_credentials(
        None if isinstance(ca, str) and ca == PUBLIC else _read_pem("tls_ca", ca, CERTIFICATE),
        None if key is None else _read_pem("tls_key", key, PRIVATE_KEY),
        None if certificate is None else _read_pem("tls_cert", certificate, CERTIFICATE),
    )


def _read_pem(name: str, pem: Pem, kind: str) -> bytes:
    """Return the content of a PEM file, or the bytes themselves."""
    if isinstance(pem, bytes):
        content, source = pem, "got bytes that hold"
    else:
        try:
            content, source = read_bounded(pem), f"{one_line(str(pem))} holds"
        except OSError as error:
            raise InvalidInput(
                f"{name}: cannot read {one_line(str(pem))}: {error.strerror}"
            ) from error
        except (TypeError, ValueError) as error:  # ValueError: a path with a NUL
            raise InvalidInput(f"{name}: got {reprlib.repr(pem)}; {error}") from error
    # gRPC itself would report no more than a failed connection.
    if not re.search(PEM_HEADERS[kind], content):
        raise InvalidInput(f"{name}: {source} no {kind}")
    return content
