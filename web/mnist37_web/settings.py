"""The settings of web, and their validation."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client.errors import InvalidInput

from mnist37_web.errors import CannotStart

HOST_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[^\s:/@\[\]]+)):(?P<port>\d{1,5})"
)
PASSWORD_MIN = 12  # characters: it guards everything that web may do, and may be guessed at


@dataclass(frozen=True)
class Upstream:
    """The server that web calls; the fields are arguments of the client."""

    address: str
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    insecure: bool = False

    def connection_settings(self, token: str | None) -> ConnectionSettings:
        """Return the settings of a connection for a token; raise InvalidInput if they are wrong."""
        return ConnectionSettings(
            self.address,
            None,
            self.tls_ca,
            self.tls_cert,
            self.tls_key,
            self.tls_server_name,
            token,
            self.insecure,
        )


@dataclass(frozen=True)
class Settings:
    """The settings of one web; the command line has an option for each."""

    upstream: Upstream
    token: str | None = None  # with which the page calls the server
    address: str = "127.0.0.1:8037"  # where to listen; port 0 picks a free one
    https_cert: Path | None = None  # web's certificate, PEM; None: plain HTTP
    https_key: Path | None = None  # its private key, PEM
    password: str | None = None  # that every request must have; None: none
    host_names: tuple[str, ...] = ()  # HOST or HOST:PORT under which a proxy's users reach web
    insecure: bool = False  # listen beyond this machine without HTTPS or without a password

    def __post_init__(self) -> None:
        """Raise CannotStart unless the settings are valid and fit together."""
        try:
            self.upstream.connection_settings(self.token)
        except InvalidInput as error:
            raise CannotStart(str(error).replace("address:", "--server:", 1)) from error
        if (self.https_cert is None) != (self.https_key is None):
            raise CannotStart("--https-cert and --https-key: give both or none")
        if self.password is not None and len(self.password) < PASSWORD_MIN:
            raise CannotStart(
                f"--password-file: the password has {len(self.password)} characters; must have at"
                f" least {PASSWORD_MIN}"
            )
        for name in self.host_names:
            if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", name):
                raise CannotStart(f"--host-name: got {name!r}; must be HOST or HOST:PORT")
        if not (self.insecure or is_loopback(self.host)):
            missing = []
            if self.https_cert is None:
                missing.append("--https-cert and --https-key")
            if self.password is None:
                missing.append("--password-file")
            if missing:
                raise CannotStart(
                    f"--address: other machines can reach {self.host}; add {' and '.join(missing)},"
                    " or --insecure if something in front of it keeps strangers out"
                )

    @property
    def host(self) -> str:
        """Return the host to listen on; raise CannotStart if the address is none."""
        return self._parse()[0]

    @property
    def port(self) -> int:
        """Return the port to listen on, 0 for any; raise CannotStart if the address is none."""
        return self._parse()[1]

    @property
    def scheme(self) -> str:
        """Return the scheme of web's own URLs."""
        return "http" if self.https_cert is None else "https"

    def _parse(self) -> tuple[str, int]:
        match = HOST_PORT.fullmatch(self.address)
        if match is None or int(match["port"]) > 65535:
            raise CannotStart(
                f"--address: got {self.address!r}; must be HOST:PORT, for example 127.0.0.1:8037"
            )
        return match["ipv6"] or match["name"], int(match["port"])


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host: localhost, or a loopback address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
