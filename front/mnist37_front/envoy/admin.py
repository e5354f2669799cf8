"""Envoy's administration, over its socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import NamedTuple

SECONDS = 2.0  # that an answer may take


class Calls(NamedTuple):
    """The counts of the calls that came to Envoy."""

    active: int
    total: int


class SocketConnection(http.client.HTTPConnection):
    """A connection of HTTP to a socket file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


class Admin:
    """The administration of one Envoy.

    Args:
        path: of its socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_ready(self) -> bool:
        """Return whether Envoy listens."""
        try:
            return self._call("GET", "/ready").strip() == b"LIVE"
        except OSError:
            return False

    def drain(self) -> None:
        """Take no new connections, and tell the callers on the others to go elsewhere."""
        self._call("POST", "/drain_listeners?graceful&skip_exit")

    def calls(self) -> Calls:
        """Return the counts of the calls."""
        names = ("downstream_rq_active", "downstream_rq_total")
        answer = self._call("GET", f"/stats?filter=^http.front.({'|'.join(names)})$").decode()
        counts = dict(line.split(": ") for line in answer.splitlines())
        return Calls(*(int(counts.get(f"http.front.{name}", 0)) for name in names))

    def _call(self, method: str, path: str) -> bytes:
        connection = SocketConnection(self._path)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
