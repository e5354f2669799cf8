"""The settings of a cluster, and the commands of its servers that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist37_client.processes import python_process
from mnist37_server.config import Config, Following
from mnist37_server.domain.address import Address, join, parse
from mnist37_server.errors import CannotStart

OWNER_PORT = 50051


@dataclass(frozen=True)
class ClusterSettings:
    """The settings of one cluster; the command line has an option for each.

    The files are read on each node, so they have the same paths on all of them.
    """

    replicas: int  # how many followers, or fronts
    ray: str | None = None  # HOST:PORT of a running Ray; None: start one on this machine
    owner: str | None = None  # HOST:PORT of a server outside Ray; None: start one on this node
    address: str | None = None  # HOST:PORT of the owner that is started; None: this node's
    state: str | None = None  # the folder of that owner; None: the default of `mnist37 serve`
    device: str = "auto"  # of that owner
    front: bool = False  # place native fronts instead of followers
    tls_cert: Path | None = None  # of each server, PEM
    tls_key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    owner_tls_ca: Path | None = None  # by which replicas verify the owner, PEM
    owner_tls_cert: Path | None = None  # the replicas' certificate for the owner, PEM
    owner_tls_key: Path | None = None
    owner_token_file: Path | None = None  # has a token of the role follow
    tls_server_name: str | None = None  # in the servers' certificates, if not in their addresses
    max_age: float | None = None  # seconds
    insecure: bool = False  # listen beyond this machine without TLS, or without tokens
    expose_ray: bool = False  # start Ray although other machines reach it
    log_level: str = "info"

    def owner_address(self, host: str) -> Address:
        """Return where the owner is: outside Ray, or on the node with this IP address.

        Raises:
            CannotStart: --owner or --address is no address.
        """
        if self.owner is not None:
            return parse("--owner", self.owner)
        address = parse("--address", self.address or join(host, OWNER_PORT))
        if address.path is not None:
            raise CannotStart(
                f"--address: got {self.address!r}; must be HOST:PORT, for other nodes"
            )
        return address

    def check(self, host: str, owner: str) -> None:
        """Raise CannotStart unless servers can start with these settings on a node.

        Args:
            host: the IP address of the node.
            owner: the address of the owner.
        """
        if self.owner is not None:
            for flag, value in (("--address", self.address), ("--state", self.state)):
                if value is not None:
                    raise CannotStart(f"{flag}: cannot be used with --owner, which runs already")
        if self.tls_server_name is not None and self.owner_tls_ca is None:
            raise CannotStart("--tls-server-name: needs --owner-tls-ca too")
        following = Following(
            owner,
            tls_ca=self.owner_tls_ca,
            tls_cert=self.owner_tls_cert,
            tls_key=self.owner_tls_key,
            token_file=self.owner_token_file,
            max_age=self.max_age,
            tls_server_name=self.tls_server_name,
            flag="--owner",
        )
        for address, followed in ((owner, None), (join(host, 0), following)):
            if followed is None and self.owner is not None:
                continue
            Config(
                address=address,
                following=followed,
                tls_cert=self.tls_cert,
                tls_key=self.tls_key,
                client_ca=self.client_ca,
                tokens=self.tokens,
                insecure=self.insecure,
            )
        if self.tokens is not None and self.owner_token_file is None:
            raise CannotStart(
                "--owner-token-file: missing; the owner asks for tokens: give the replicas one of"
                " the role follow, which `mnist37 token follow` makes"
            )
        self._check_tls()

    def _check_tls(self) -> None:
        """Raise CannotStart unless the followers and this command can call the servers.

        Otherwise they would wait in vain for a server that serves.
        """
        if self.tls_cert is not None and self.owner_tls_ca is None:
            raise CannotStart(
                "--owner-tls-ca: missing; the servers speak TLS: give the authority of their"
                " certificates"
            )
        if self.client_ca is not None and self.owner_tls_cert is None:
            raise CannotStart(
                "--owner-tls-cert: missing; the servers ask for certificates: give the followers"
                " and this command one that --client-ca has signed"
            )
        if self.owner is None and self.owner_tls_ca is not None and self.tls_cert is None:
            raise CannotStart(
                "--tls-cert: missing; the followers look for TLS at the owner, which has none"
                " without it; give it, or leave --owner-tls-ca out"
            )

    def owner_command(self, address: str) -> list[str]:
        """Return the command of the owner."""
        flags = {"--address": address, "--state": self.state, "--device": self.device}
        return [*python_process.command("mnist37_server"), *self._options(flags)]

    def replica_command(self, host: str, owner: str) -> list[str]:
        """Return the command of a follower, or of a front, on the node with this IP address."""
        module, flag = "mnist37_server", "--follow"
        if self.front:
            module, flag = "mnist37_front", "--owner"
        flags: dict[str, str | Path | float | None] = {
            flag: owner,
            "--address": join(host, 0),
            f"{flag}-tls-ca": self.owner_tls_ca,
            f"{flag}-tls-cert": self.owner_tls_cert,
            f"{flag}-tls-key": self.owner_tls_key,
            f"{flag}-tls-server-name": self.tls_server_name,
            f"{flag}-token-file": self.owner_token_file,
            "--max-age": self.max_age,
        }
        if self.front:
            flags["--no-http"] = True
        return [*python_process.command(module), *self._options(flags)]

    def _options(self, flags: Mapping[str, str | Path | float | None]) -> list[str]:
        flags = {
            **flags,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--client-ca": self.client_ca,
            "--tokens": self.tokens,
            "--insecure": self.insecure or None,
            "--log-level": self.log_level,
        }
        options = []
        for flag, value in flags.items():
            if value is not None:
                options += [flag] if value is True else [flag, str(value)]
        return options
