"""The settings of a server, and their validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist37_server.domain.address import Address, parse
from mnist37_server.errors import CannotStart

RESERVED_RPCS = 16  # of --max-rpcs, which waiting writes and streams can never use up
SECONDS_MAX = 86_400.0  # a day: the upper limit of each setting in seconds


@dataclass(frozen=True)
class Following:
    """The settings of a follower; the command line has an option for each."""

    owner: str  # HOST:PORT or unix:PATH of the owner of the model, or of another follower
    tls_ca: Path | None = None  # the authority, PEM, that signed its certificate; turns TLS on
    tls_cert: Path | None = None  # the follower's certificate, PEM, for an owner with --client-ca
    tls_key: Path | None = None  # its private key, PEM
    token_file: Path | None = None  # has a token of the role follow
    advertise: str | None = None  # HOST:PORT at which others reach it; None: where it listens
    max_age: float | None = None  # seconds; its reads are refused after that; None: never
    tls_server_name: str | None = None  # in the owner's certificate, if not in its address
    flag: str = "--follow"  # has the owner's address, and begins the flags of the way there

    def __post_init__(self) -> None:
        """Raise CannotStart unless the settings are valid and fit together."""
        owner = self.parsed_owner
        if owner.path is None and not owner.port:
            raise CannotStart(f"{self.flag}: got {self.owner!r}; must have the owner's port, not 0")
        if self.advertise is not None:
            parse("--advertise", self.advertise)
        if self.max_age is not None and not 1 <= self.max_age <= SECONDS_MAX:
            raise CannotStart(
                f"--max-age: got {self.max_age:g}; must be 1 to {SECONDS_MAX:,.0f} seconds"
            )
        check_pair(f"{self.flag}-tls-cert", self.tls_cert, f"{self.flag}-tls-key", self.tls_key)
        if self.tls_cert is not None and self.tls_ca is None:
            raise CannotStart(f"{self.flag}-tls-cert: needs {self.flag}-tls-ca too")
        if self.tls_server_name is not None and self.tls_ca is None:
            raise CannotStart(f"{self.flag}-tls-server-name: needs {self.flag}-tls-ca too")

    @property
    def parsed_owner(self) -> Address:
        """Return the address of the owner; raise CannotStart if it is none."""
        return parse(self.flag, self.owner)


@dataclass(frozen=True)
class Config:
    """The settings of one server; the command line has an option for each."""

    address: str = "127.0.0.1:50051"  # HOST:PORT, where port 0 picks a free one, or unix:PATH
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto is cuda where there is one
    state: Path | None = None  # the folder that keeps the model; None: memory, for throw-away runs
    data_root: Path | None = None  # MNIST as torchvision keeps it; None: the shipped images
    download: bool = False  # let torchvision download MNIST into data_root
    shutdown_grace: float = 10.0  # seconds that calls in flight may take at the end
    max_message_mib: int = 64  # the size limit of a message, in MiB
    max_rpcs: int = 2048  # calls in flight at a time, waiting ones included; 0: no limit
    max_pending_writes: int = 256  # of these, callers that wait for a write or a run
    max_streams: int = 256  # of these, streams of predictions and WatchRuns; and as many Trains
    max_followers: int = 64  # Follow streams at a time
    message_timeout: float = 60.0  # seconds to send a message in, and to read an answer in
    keepalive: float = 60.0  # seconds without data from a peer until the server sends it a ping
    metrics_address: str | None = None  # HOST:PORT of the metrics for Prometheus; None: no metrics
    tls_cert: Path | None = None  # the server's certificate, PEM; None: connections are plain text
    tls_key: Path | None = None  # its private key, PEM
    client_ca: Path | None = None  # the authority, PEM, that must have signed callers' certificates
    tokens: Path | None = None  # the file of hashed tokens; None: callers need no token
    insecure: bool = False  # listen beyond this machine even without TLS, or without tokens
    max_connection_age: float | None = None  # seconds until a connection is to be renewed
    following: Following | None = None  # None: the server owns its model

    def __post_init__(self) -> None:
        """Raise CannotStart unless the settings are valid and fit together.

        Seconds have an upper limit, since gRPC accepts at most 24 days, and NaN is refused.
        An address must be one, since gRPC would listen elsewhere for other texts. An address that
        other machines can reach needs TLS and an authentication of callers, or --insecure.
        Waiting calls must leave RESERVED_RPCS of --max-rpcs to others.
        """
        for flag, seconds, minimum in (
            ("--shutdown-grace", self.shutdown_grace, 0),
            ("--message-timeout", self.message_timeout, 1),
            ("--keepalive", self.keepalive, 1),
            ("--max-connection-age", self.max_connection_age, 1),
        ):
            if seconds is not None and not minimum <= seconds <= SECONDS_MAX:  # true for NaN too
                raise CannotStart(
                    f"{flag}: got {seconds:g}; must be {minimum} to {SECONDS_MAX:,.0f} seconds"
                )
        # Both raise.
        listening, _ = self.parsed_address, self.parsed_metrics_address
        rpcs_min = (
            self.max_pending_writes + 2 * self.max_streams + self.max_followers + RESERVED_RPCS
        )
        if self.max_rpcs and self.max_rpcs < rpcs_min:
            raise CannotStart(
                f"--max-rpcs: got {self.max_rpcs:,}; must be 0 for no limit, or at least"
                f" {rpcs_min:,}: --max-pending-writes + 2 * --max-streams + --max-followers +"
                f" {RESERVED_RPCS}, so that calls that wait leave room for the others"
            )
        check_pair("--tls-cert", self.tls_cert, "--tls-key", self.tls_key)
        if self.client_ca is not None and self.tls_cert is None:
            raise CannotStart("--client-ca: needs --tls-cert and --tls-key too")
        if not self.insecure and not listening.is_loopback and self.missing_protection:
            raise CannotStart(
                f"--address: other machines can reach {listening.host}; add"
                f" {self.missing_protection}, or --insecure if something in front of it keeps"
                " strangers out"
            )

        if self.following is not None:
            self._check_following(self.following)

    def _check_following(self, following: Following) -> None:
        flag = following.flag
        if following.parsed_owner == self.parsed_address:
            raise CannotStart(
                f"{flag}: got {following.owner}, which is --address; must be another server's"
            )
        if self.device not in ("auto", "cpu"):
            raise CannotStart(
                f"--device: got {self.device!r}; a follower computes on the CPU: must be cpu or"
                " auto"
            )
        if (
            following.token_file is not None
            and following.tls_ca is None
            and not following.parsed_owner.is_loopback
            and not self.insecure
        ):
            raise CannotStart(
                f"{flag}-token-file: the token would go to another machine in plain text; add"
                f" {flag}-tls-ca, or --insecure if nobody can read along"
            )

    @property
    def parsed_address(self) -> Address:
        """Return the address to listen on; raise CannotStart if it is none."""
        return parse("--address", self.address)

    @property
    def parsed_metrics_address(self) -> Address | None:
        """Return the address of the metrics, or None; raise CannotStart if it is none."""
        if self.metrics_address is None:
            return None
        return parse("--metrics-address", self.metrics_address, accepts_unix=False)

    @property
    def missing_protection(self) -> str:
        """Return the options that encryption and authentication still need, or an empty text."""
        options = []
        if self.tls_cert is None:
            options.append("--tls-cert and --tls-key")
        if self.client_ca is None and self.tokens is None:
            options.append("--tokens or --client-ca")
        return ", and ".join(options)


def check_pair(cert_flag: str, cert: Path | None, key_flag: str, key: Path | None) -> None:
    """Raise CannotStart if a certificate is given without its key, or a key without one."""
    if cert is None and key is not None:
        raise CannotStart(f"{key_flag}: needs {cert_flag} too")
    if cert is not None and key is None:
        raise CannotStart(f"{cert_flag}: needs {key_flag} too")
