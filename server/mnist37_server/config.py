"""All that a server can be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from mnist37_server.errors import CannotStart

RESERVED_RPCS = 16  # calls that there is room for whoever waits
SECONDS_MAX = 86_400.0  # seconds that anything is waited for: a day


@dataclass(frozen=True)
class Config:
    """One server's settings; the command line of mnist37_server.__main__ says the same."""

    address: str = "127.0.0.1:50051"  # HOST:PORT to listen on; port 0 picks a free one
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto is cuda where there is one
    state: Path | None = None  # the folder that keeps the model; None: memory, for throw-away runs
    data_root: Path | None = None  # MNIST as torchvision keeps it; None: the shipped images
    download: bool = False  # let torchvision fetch MNIST into data_root
    shutdown_grace: float = 10.0  # seconds that answers under way are given at the end
    max_message_mib: int = 64  # MiB that a message may have
    max_rpcs: int = 2048  # calls under way at a time, waiting ones included; 0: as many as come
    max_pending_writes: int = 256  # of them, who wait for a write or follow a run that they train
    max_streams: int = 256  # of them, PredictStreams and WatchRuns
    keepalive: float = 60.0  # seconds without a sign of a peer until it is asked for one
    metrics_address: str | None = None  # HOST:PORT to answer Prometheus on; None: nowhere
    tls_cert: Path | None = None  # the server's certificate, PEM; None: connections are plain text
    tls_key: Path | None = None  # its private key, PEM
    client_ca: Path | None = None  # the authority, PEM, that must have signed callers' certificates
    tokens: Path | None = None  # the file of hashed tokens, one of which callers must have
    insecure: bool = False  # listen where others can reach it without TLS, or let anybody call

    def __post_init__(self) -> None:
        """Raises CannotStart where the settings make no server.

        Seconds must be some: gRPC takes no more than 24 days, and not a number is neither much nor
        little. Addresses must be HOST:PORT: gRPC would listen elsewhere; and one that others can
        reach must be closed to strangers, unless that is said to be meant. And those who wait must
        not be able to take all the room there is.
        """
        for flag, seconds, least in (
            ("--shutdown-grace", self.shutdown_grace, 0),
            ("--keepalive", self.keepalive, 1),
        ):
            if not least <= seconds <= SECONDS_MAX:  # true for NaN too
                raise CannotStart(
                    f"{flag}: got {seconds:g}; must be {least} to {SECONDS_MAX:,.0f} seconds"
                )
        check_address("--address", self.address)
        if self.metrics_address is not None:
            check_address("--metrics-address", self.metrics_address)
        room = self.max_pending_writes + self.max_streams + RESERVED_RPCS
        if self.max_rpcs and self.max_rpcs < room:
            raise CannotStart(
                f"--max-rpcs: got {self.max_rpcs:,}; must be 0 for no limit, or at least {room:,}:"
                f" --max-pending-writes + --max-streams + {RESERVED_RPCS}, so that calls that wait"
                " leave room for the others"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = "--tls-cert", "--tls-key"
            if self.tls_cert is None:
                given, missing = missing, given
            raise CannotStart(f"{given}: needs {missing} too")
        if self.client_ca is not None and self.tls_cert is None:
            raise CannotStart("--client-ca: needs --tls-cert and --tls-key too")
        if not self.insecure and not self.loopback and self.missing_protection:
            raise CannotStart(
                f"--address: other machines can reach {self.host}; add {self.missing_protection},"
                " or --insecure if something in front of it keeps strangers out"
            )

    @property
    def host(self) -> str:
        """The part of the address before the port."""
        return self.address.rpartition(":")[0]

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address; of a name other than localhost, no."""
        host = self.host.removeprefix("[").removesuffix("]")
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def missing_protection(self) -> str:
        """The options that would keep strangers from reading along and from calling."""
        needs = []
        if self.tls_cert is None:
            needs.append("--tls-cert and --tls-key")
        if self.client_ca is None and self.tokens is None:
            needs.append("--tokens or --client-ca")
        return ", and ".join(needs)


def check_address(flag: str, address: str) -> None:
    """Raises CannotStart unless it is HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CannotStart(f"{flag}: got {address!r}; must be HOST:PORT, PORT from 0 to 65535")
