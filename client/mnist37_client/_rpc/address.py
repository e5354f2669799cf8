"""The check of a server's address: HOST:PORT, or unix:PATH of a socket file."""

from __future__ import annotations

import ipaddress
import re

from mnist37_client.errors import InvalidInput

UNIX = "unix:"
# This and probably_meant are in mnist37_server.domain.address too, which may not be imported here.
PORT_DEFAULT = 50051


def check_address(address: str) -> str:
    """Return the address; raise InvalidInput unless it is one, and say what was probably meant.

    gRPC would accept another form and connect to another place.
    """
    if not isinstance(address, str):
        raise InvalidInput(f"address: got {address!r}; must be HOST:PORT or unix:PATH, as text")
    is_socket_file = re.fullmatch(r"unix:(?!//[^/])[^\0]+", address)
    if is_socket_file or _is_host_and_port(address):
        return address
    meant = probably_meant(address.removeprefix(UNIX))
    is_shown = meant.isprintable() and _is_host_and_port(meant)
    hint = f"; {meant}, for example" if is_shown else ""
    raise InvalidInput(
        f"address: got {address!r}; must be HOST:PORT, PORT from 1 to 65535, or unix:PATH{hint}"
    )


def to_loopback(address: str) -> str:
    """Return where to call a server on this machine that listens at all addresses, 0.0.0.0:PORT.

    Its certificate may have the name 127.0.0.1, and never has the name 0.0.0.0.
    """
    return re.sub(r"^\[::\]:", "[::1]:", re.sub(r"^0\.0\.0\.0:", "127.0.0.1:", address))


def _is_host_and_port(address: str) -> bool:
    match = re.fullmatch(r"(?:\[(.+)\]|[^\s:/@*\[\]]+):([0-9]{1,5})", address)
    if match is None or not 1 <= int(match[2]) <= 65535:
        return False
    try:
        return match[1] is None or bool(ipaddress.IPv6Address(match[1]))
    except ValueError:
        return False


def probably_meant(address: str) -> str:
    """Return the address that somebody probably meant by a text that is none.

    http://HOST:PORT/ and dns:///HOST:PORT lose what is too much, HOST gets a port, and an address
    of IPv6 gets its brackets.
    """
    rest = re.sub(r"^\s*[a-zA-Z]+:/+|[/\s]+$", "", address).strip()
    host, _, port = rest.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or host.endswith(":"):
        host, port = rest if rest.startswith("::") else rest.rstrip(":"), str(PORT_DEFAULT)
    host = host.strip("[]")
    if host in ("", "*"):
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
