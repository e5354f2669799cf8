"""All that a server can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist37_server.errors import CannotStart


@dataclass(frozen=True)
class Config:
    """One server's settings; the command line of mnist37_server.__main__ says the same."""

    address: str = "127.0.0.1:50051"  # HOST:PORT to listen on; port 0 picks a free one
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto is cuda where there is one
    state: Path | None = None  # the folder that keeps the model; None: memory, for throw-away runs
    data_root: Path | None = None  # MNIST as torchvision keeps it; None: the shipped images
    download: bool = False  # let torchvision fetch MNIST into data_root
    grace: float = 10.0  # seconds that predictions under way are given at the end

    def __post_init__(self) -> None:
        """Raises CannotStart unless the address is HOST:PORT; gRPC would listen elsewhere."""
        port = self.address.rpartition(":")[2]
        if not self.host or not port.isdecimal() or int(port) > 65535:
            raise CannotStart(
                f"--address: got {self.address!r}; must be HOST:PORT, PORT from 0 to 65535"
            )

    @property
    def host(self) -> str:
        """The part of the address before the port."""
        return self.address.rpartition(":")[0]
