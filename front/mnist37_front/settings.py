"""The settings of a front, as the launcher hands them to the application in Envoy."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from mnist37_client.errors import InvalidInput
from mnist37_client.files.secret_file import read_secret
from mnist37_server.config import Config, Following
from mnist37_server.domain.address import Address, parse
from mnist37_server.errors import CannotStart
from mnist37_web.errors import CannotStart as CannotStartWeb
from mnist37_web.settings import Settings as WebSettings
from mnist37_web.settings import Upstream

VARIABLE = "MNIST37_FRONT_SETTINGS"  # of the environment of Envoy
CONNECTIONS_MAX = 10_000
LOGGED = ("mnist37_front", "mnist37_server")  # the packages whose events are logged


@dataclass(frozen=True)
class FrontSettings:
    """The settings of one front; the command line has an option for each."""

    owner: str = "127.0.0.1:50051"  # HOST:PORT or unix:PATH of the server that owns the model
    address: str = "127.0.0.1:50061"  # HOST:PORT, where port 0 picks a free one, or unix:PATH
    owner_tls_ca: Path | None = None  # the authority, PEM, of the owner's certificate; turns TLS on
    owner_tls_cert: Path | None = None  # the front's certificate, PEM, for the owner
    owner_tls_key: Path | None = None  # its private key, PEM
    owner_tls_server_name: str | None = None  # in the owner's certificate, if not in its address
    owner_token_file: Path | None = None  # has a token of the role follow
    tls_cert: Path | None = None  # the front's certificate, PEM, for its callers
    tls_key: Path | None = None  # its private key, PEM
    client_ca: Path | None = None  # the authority, PEM, that must have signed callers' certificates
    tokens: Path | None = None  # the file of hashed tokens, the owner's
    insecure: bool = False
    max_message_mib: int = 64
    message_timeout: float = 60.0  # seconds to send a message in
    keepalive: float = 60.0  # seconds between two pings to a caller
    max_connection_age: float | None = None  # seconds until a connection is to be renewed
    max_age: float | None = None  # seconds after which reads are refused; None: never
    metrics_address: str | None = None
    shutdown_grace: float = 10.0
    workers: int = 1  # threads of Envoy that serve connections
    log_format: str = "text"
    log_level: str = "info"
    http: bool = True  # show the page and serve the HTTP API too
    page_token_file: Path | None = None  # has the token by which the page acts
    password_file: Path | None = None  # has the password that the page and the HTTP API ask for
    host_names: tuple[str, ...] = ()  # further names under which browsers reach the front
    # Of the launcher alone: a folder of this user's, for the sockets of this process.
    folder: Path = Path("/nonexistent")

    def __post_init__(self) -> None:
        """Raise CannotStart unless the settings are valid and fit together."""
        self.server_config()
        if self.owner_token_file is not None and self.tokens is None and not self.insecure:
            raise CannotStart(
                "--tokens: missing; the owner asks for tokens, and the front answers predictions"
                " itself: give it the owner's file of tokens, or --insecure if everybody may"
                " predict"
            )
        if self.http:
            self.web_settings()
        if not 1 <= self.workers <= 64:
            raise CannotStart(f"--workers: got {self.workers}; must be 1 to 64")

    def server_config(self) -> Config:
        """Return the settings of the server's parts in the front; raise CannotStart if invalid."""
        following = Following(
            self.owner,
            tls_ca=self.owner_tls_ca,
            tls_cert=self.owner_tls_cert,
            tls_key=self.owner_tls_key,
            token_file=self.owner_token_file,
            max_age=self.max_age,
            tls_server_name=self.owner_tls_server_name,
            flag="--owner",
        )
        return Config(
            address=self.address,
            following=following,
            max_message_mib=self.max_message_mib,
            message_timeout=self.message_timeout,
            keepalive=self.keepalive,
            max_connection_age=self.max_connection_age,
            metrics_address=self.metrics_address,
            shutdown_grace=self.shutdown_grace,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            client_ca=self.client_ca,
            tokens=self.tokens,
            insecure=self.insecure,
        )

    def web_settings(self) -> WebSettings:
        """Return the settings of the page and the HTTP API; raise CannotStart if invalid.

        They call the front itself, so that they predict while the owner is away.
        """
        try:
            return WebSettings(
                Upstream(f"unix:{self.internal_socket}"),
                token=read_optional_secret("--page-token-file", self.page_token_file),
                address="localhost:0" if self.parsed_address.path else self.address,
                https_cert=self.tls_cert,
                https_key=self.tls_key,
                password=read_optional_secret("--password-file", self.password_file),
                host_names=tuple(self.host_names),
                insecure=self.insecure,
            )
        except CannotStartWeb as error:
            text = (
                str(error).replace("--https-cert", "--tls-cert").replace("--https-key", "--tls-key")
            )
            raise CannotStart(f"{text}; or --no-http for gRPC alone") from error

    @property
    def parsed_owner(self) -> Address:
        """Return the address of the owner."""
        return parse("--owner", self.owner)

    @property
    def parsed_address(self) -> Address:
        """Return the address to listen on."""
        return parse("--address", self.address)

    @property
    def internal_socket(self) -> Path:
        """Return the socket on which the front answers its own page and HTTP API."""
        return self.folder / "internal.sock"

    @property
    def end_pipe(self) -> Path:
        """Return the named pipe on which the launcher says that the end begins."""
        return self.folder / "end"

    @property
    def admin_socket(self) -> Path:
        """Return the socket of Envoy's administration, which only this user reaches."""
        return self.folder / "admin.sock"

    def absolute(self) -> FrontSettings:
        """Return the same settings for a process with another current folder."""
        paths: dict[str, Any] = {
            name: value.absolute() for name, value in vars(self).items() if isinstance(value, Path)
        }
        return replace(
            self, owner=str(self.parsed_owner), address=str(self.parsed_address), **paths
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variable that carries the settings into Envoy."""
        return {VARIABLE: json.dumps(asdict(self), default=str)}

    @classmethod
    def from_environment(cls) -> FrontSettings:
        """Return the settings that the launcher has put into the environment."""
        values: dict[str, Any] = json.loads(os.environ[VARIABLE])
        for field in fields(cls):
            if "Path" in str(field.type) and values[field.name] is not None:
                values[field.name] = Path(values[field.name])
        return cls(**values)


def read_optional_secret(option: str, file: Path | None) -> str | None:
    """Return the secret that a file holds, or None; raise CannotStart if it has none."""
    try:
        return None if file is None else read_secret(option, file)
    except InvalidInput as error:
        raise CannotStart(str(error)) from error


class Pair(NamedTuple):
    """The settings of a front, and the command that starts the owner of its model."""

    settings: FrontSettings
    owner_command: tuple[str, ...]
