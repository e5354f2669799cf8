"""All that a server can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist37_server.errors import CannotStart

SPARE_RPCS = 16  # calls that there is room for whoever waits


@dataclass(frozen=True)
class Config:
    """One server's settings; the command line of mnist37_server.__main__ says the same."""

    address: str = "127.0.0.1:50051"  # HOST:PORT to listen on; port 0 picks a free one
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto is cuda where there is one
    state: Path | None = None  # the folder that keeps the model; None: memory, for throw-away runs
    data_root: Path | None = None  # MNIST as torchvision keeps it; None: the shipped images
    download: bool = False  # let torchvision fetch MNIST into data_root
    grace: float = 10.0  # seconds that predictions under way are given at the end
    max_message: int = 64  # MiB that a message may have
    max_rpcs: int = 2048  # calls under way at a time, those that wait for a thread included
    max_waiting: int = 256  # of them, who wait for a write or follow a run that they train
    max_streams: int = 256  # of them, PredictStreams and WatchRuns
    keepalive: float = 60.0  # seconds without a sign of a peer until it is asked for one
    metrics_address: str | None = None  # HOST:PORT to answer Prometheus on; None: nowhere

    def __post_init__(self) -> None:
        """Raises CannotStart where the settings make no server.

        Addresses must be HOST:PORT: gRPC would listen elsewhere. And those who wait must not be
        able to take all the room there is.
        """
        check_address("--address", self.address)
        if self.metrics_address is not None:
            check_address("--metrics-address", self.metrics_address)
        least = self.max_waiting + self.max_streams + SPARE_RPCS
        if self.max_rpcs < least:
            raise CannotStart(
                f"--max-rpcs: got {self.max_rpcs:,}; must be at least {least:,}, which is"
                f" --max-waiting and --max-streams and {SPARE_RPCS}, so that those who wait leave"
                " room for the others"
            )

    @property
    def host(self) -> str:
        """The part of the address before the port."""
        return self.address.rpartition(":")[0]


def check_address(flag: str, address: str) -> None:
    """Raises CannotStart unless it is HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CannotStart(f"{flag}: got {address!r}; must be HOST:PORT, PORT from 0 to 65535")
