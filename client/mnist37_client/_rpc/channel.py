"""The connections of a client: TLS or plain text, with a certificate or a token."""

from __future__ import annotations

import ipaddress
import re
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import grpc

from mnist37_client._rpc.address import UNIX, check_address
from mnist37_client._rpc.lifetime import is_forked_process
from mnist37_client._rpc.replicas import CHANNEL_OPTIONS as REPLICA_OPTIONS
from mnist37_client._rpc.replicas import OWNERS_LIST, Replicas, parse_listed, parse_replicas
from mnist37_client.errors import InvalidInput, one_line
from mnist37_client.files.bounded_file import read_bounded

ReplicaNames = str | Iterable[str]  # dns:///NAME:PORT, addresses, or "owner" for its list
Pem = str | Path | bytes  # a file's path, or the content of such a file

Option = tuple[str, str | int]  # of a channel

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
    """The settings of a client's connections, checked.

    Args:
        address: HOST:PORT of the server, the owner of the model; None if only followers are known.
        replicas: the followers that answer reads, or "owner": those of the owner's list; None if
            there are none.
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
        address: str | None,
        replicas: ReplicaNames | None,
        tls_ca: Pem | None,
        tls_cert: Pem | None,
        tls_key: Pem | None,
        tls_server_name: str | None,
        token: str | None,
        insecure: bool,
    ) -> None:
        self.lists_followers = isinstance(replicas, str) and replicas == OWNERS_LIST
        self.replicas: Replicas | None = None
        if replicas is not None and not self.lists_followers:
            self.replicas = parse_replicas(replicas)
        if address is None and self.replicas is None:
            unless = "to ask for its list" if self.lists_followers else "unless there are replicas"
            raise InvalidInput(f"address: got None; must be HOST:PORT, {unless}")
        self.address = None if address is None else check_address(address)
        self._options: list[Option] = []
        self._credentials = _credentials(tls_ca, tls_cert, tls_key, tls_server_name)
        # A function, so that nothing that shows this object's fields shows the token.
        self._token = None if token is None else lambda: token
        self._server_name = tls_server_name
        if tls_server_name is not None:
            if not isinstance(tls_server_name, str) or not tls_server_name.isprintable():
                got = reprlib.repr(tls_server_name)
                raise InvalidInput(f"tls_server_name: got {got}; must be a host's name")
            self._options.append(("grpc.ssl_target_name_override", tls_server_name))
        elif self._credentials is not None and (
            self.lists_followers or (self.replicas and len(self.replicas.hosts) > 1)
        ):
            raise InvalidInput(
                "tls_server_name: missing; gRPC looks for one name in the certificates of all"
                " replicas"
            )
        self._insecure = insecure
        if token is None:
            return
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise InvalidInput(
                "token: must be printable ASCII without spaces, as `mnist37 token` prints it"
            )
        self._check_token_is_safe(self._addresses())

    def accept_listed(self, addresses: Iterable[str]) -> Replicas | None:
        """Return the followers of the owner's list to ask; None if there are none.

        Raises:
            InvalidInput: none can be asked, or the token would go to one in plain text.
        """
        replicas = parse_listed(addresses)
        if replicas is not None and self._token is not None:
            self._check_token_is_safe(replicas.addresses)
        return replicas

    def _check_token_is_safe(self, addresses: Iterable[str]) -> None:
        others = [name for name in addresses if not is_this_machine(name)]
        if self._credentials is None and others and not self._insecure:
            raise InvalidInput(
                f"token: would go to {others[0]} in plain text; give tls_ca, or insecure if you"
                " trust the network"
            )

    def channel(
        self,
        plain: Callable[..., C],
        secure: Callable[..., C],
        options: list[tuple[str, int]],
    ) -> C:
        """Return a channel to the server, which one of grpc's two functions makes."""
        assert self.address is not None
        return self._channel(plain, secure, self.address, [self.address], options)

    def replica_channel(
        self,
        plain: Callable[..., C],
        secure: Callable[..., C],
        options: list[tuple[str, int]],
        replicas: Replicas,
    ) -> C:
        """Return a channel to followers."""
        target, addresses = replicas
        # By default the name in a certificate would have to be the whole list.
        authority: list[Option] = [("grpc.default_authority", self._server_name or addresses[0])]
        all_options = [*options, *authority, *REPLICA_OPTIONS]
        return self._channel(plain, secure, target, addresses, all_options)

    def _channel(
        self,
        plain: Callable[..., C],
        secure: Callable[..., C],
        target: str,
        addresses: Iterable[str],
        options: Iterable[Option],
    ) -> C:
        options = [*options, *self._options]
        if all(map(is_this_machine, addresses)):
            # Otherwise gRPC would use the proxy that the environment names, if there is one.
            options.append(("grpc.enable_http_proxy", 0))
        if is_forked_process():  # or the parent's connection would serve the child too
            options.append(("grpc.use_local_subchannel_pool", 1))
        if self._credentials is None:
            return plain(target, options=options)
        return secure(target, self._credentials, options=options)

    def _addresses(self) -> list[str]:
        """Return where the client connects to."""
        owner = [] if self.address is None else [self.address]
        return [*owner, *(self.replicas.addresses if self.replicas else ())]

    def stub(self, stub: S) -> S:
        """Return the stub, whose calls now send the token.

        They send it as metadata: call credentials would cost a thread for each call.
        """
        if self._token is not None:
            metadata = (("authorization", f"Bearer {self._token()}"),)
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
