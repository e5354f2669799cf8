"""Envoy's administration, over its socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

SECONDS = 2.0  # that an answer may take


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

    def addresses(self) -> list[str]:
        """Return the addresses on which the front listens, without its internal socket."""
        found = json.loads(self._call("GET", "/listeners?format=json"))["listener_statuses"]
        return [
            describe(item["local_address"]) for item in found if item["name"].startswith("front-")
        ]

    def drain(self) -> None:
        """Take no new connections, and tell the callers on the others to go elsewhere."""
        self._call("POST", "/drain_listeners?graceful&skip_exit")

    def active_calls(self) -> int:
        """Return the number of calls in progress."""
        name = "http.front.downstream_rq_active"
        answer = self._call("GET", f"/stats?filter=^{name}$").decode()
        return int(answer.rpartition(":")[2] or 0)

    def _call(self, method: str, path: str) -> bytes:
        connection = SocketConnection(self._path)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()


def describe(address: dict[str, dict[str, str | int]]) -> str:
    """Return one of Envoy's addresses as HOST:PORT or unix:PATH."""
    if "pipe" in address:
        return f"unix:{address['pipe']['path']}"
    host, port = address["socket_address"]["address"], address["socket_address"]["port_value"]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
