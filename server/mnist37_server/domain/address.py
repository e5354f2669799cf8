"""The addresses that the server listens on: HOST:PORT, or unix:PATH for a socket file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from mnist37_server.errors import CannotStart

UNIX = "unix:"
# This and probably_meant are in mnist37_client._rpc.address too, which may not be imported here.
PORT_DEFAULT = 50051
LOCALHOST = "localhost"
WILDCARDS = ("0.0.0.0", "::")
SOCKET_PATH_BYTES_MAX = 107  # the system's limit


@dataclass(frozen=True)
class Address:
    """An address to listen on.

    Attributes:
        host: a name, or an address without brackets; empty for a socket file.
        port: 0 picks a free one.
        path: the absolute path of the socket file, or None.
    """

    host: str
    port: int
    path: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Return True if only this machine can reach the address.

        The only host name that counts is localhost: other names are not resolved.
        """
        if self.path is not None or self.host == LOCALHOST:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Return the text that `parse` accepts and that a client can call."""
        return f"{UNIX}{self.path}" if self.path else join(self.host, self.port)


def for_callers(address: str, text: str | None = None) -> str:
    """Return an address as callers are told it: without the path of a socket file.

    Args:
        address: HOST:PORT or unix:PATH.
        text: in which the path may stand, as in an error of gRPC; returned in place of the address.
    """
    if text is None:
        text = address
    return text.replace(address.removeprefix(UNIX), "...") if address.startswith(UNIX) else text


def join(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(flag: str, text: str, *, accepts_unix: bool = True) -> Address:
    """Return the address that a text names.

    Raises:
        CannotStart: it names none; the text of the error says what was probably meant.
    """
    if accepts_unix and text.startswith(UNIX):
        return _parse_unix(flag, text)
    address = _parse(text)
    if address is not None:
        return address
    expected = "HOST:PORT, PORT from 0 to 65535" + (", or unix:PATH" if accepts_unix else "")
    meant = probably_meant(text)
    hint = f"; {meant}, for example" if _parse(meant) else ""
    raise CannotStart(f"{flag}: got {text!r}; must be {expected}{hint}")


def _parse(text: str) -> Address | None:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:/@*\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        return None
    if match[1]:
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError:
            return None
    return Address(match[1] or match[2], int(match[3]))


def _parse_unix(flag: str, text: str) -> Address:
    path = re.sub(r"^///", "/", text.removeprefix(UNIX))  # gRPC has the form unix:///PATH too
    if not path or path.startswith("//"):
        raise CannotStart(f"{flag}: got {text!r}; must be unix:PATH, for example unix:mnist37.sock")
    try:
        absolute = Path(path).absolute()
    except OSError as error:  # of the current folder
        raise CannotStart(
            f"{flag}: got {text!r}, and the current folder is gone; give a path from / on"
        ) from error
    size = len(str(absolute).encode(errors="surrogateescape"))
    if size > SOCKET_PATH_BYTES_MAX:
        raise CannotStart(
            f"{flag}: the path of a socket file has at most {SOCKET_PATH_BYTES_MAX} bytes;"
            f" {absolute} has {size}"
        )
    return Address("", 0, absolute)


def probably_meant(text: str) -> str:
    """Return the address that somebody probably meant by a text that is none.

    http://HOST:PORT/ and dns:///HOST:PORT lose what is too much, HOST gets a port, and an address
    of IPv6 gets its brackets.
    """
    rest = re.sub(r"^\s*[a-zA-Z]+:/+|[/\s]+$", "", text).strip()
    host, _, port = rest.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or host.endswith(":"):
        host, port = rest if rest.startswith("::") else rest.rstrip(":"), str(PORT_DEFAULT)
    host = host.strip("[]")
    return join("0.0.0.0" if host in ("", "*") else host, int(port))
