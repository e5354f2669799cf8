"""The sockets on which Ray's processes listen, and whether other machines reach them."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import psutil
from mnist37_server.domain.address import join
from mnist37_server.errors import CannotStart


class Listener(NamedTuple):
    """A socket that listens."""

    process: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{join(self.host, self.port)} ({self.process})"


def find_listeners(pid: int | None = None) -> list[Listener]:
    """Return the TCP sockets on which a process and its descendants listen.

    Args:
        pid: of the process; None for this one.
    """
    found = set()
    own = psutil.Process(pid)
    for process in [own, *own.children(recursive=True)]:
        try:
            name = "this process" if process == own else process.name()
            connections = process.net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        found |= {
            Listener(name, plain(connection.laddr.ip), connection.laddr.port)
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        }
    return sorted(found)


def other_addresses() -> list[str]:
    """Return the addresses at which other machines may reach this one; none if it has lo alone."""
    stats = psutil.net_if_stats()
    return sorted(
        plain(address.address)
        for interface, addresses in psutil.net_if_addrs().items()
        if interface in stats and stats[interface].isup
        for address in addresses
        if is_ip(address.address) and not is_local(plain(address.address))
    )


def check_unreachable(listeners: list[Listener], addresses: list[str]) -> None:
    """Raise CannotStart if other machines reach one of the sockets.

    Args:
        listeners: the sockets.
        addresses: at which other machines reach this one.
    """
    reachable = [listener for listener in listeners if not is_local(listener.host)]
    if reachable and addresses:
        raise CannotStart(
            f"Ray listens on {', '.join(map(str, reachable))}, where other machines reach it at"
            f" {addresses[0]}, and whoever has Ray's token runs commands here; start it where there"
            " is only lo: unshare --map-root-user --net sh -c 'ip link set lo up && exec mnist37"
            " cluster …'; or give --expose-ray if a firewall keeps others away"
        )


def plain(address: str) -> str:
    """Return an address without an IPv6 zone, and one of IPv4 in IPv6 as that of IPv4."""
    bare = address.partition("%")[0]
    mapped = ipaddress.IPv6Address(bare).ipv4_mapped if ":" in bare and is_ip(bare) else None
    return str(mapped or bare)


def is_ip(address: str) -> bool:
    """Return whether a text is an IP address; an interface has others too."""
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an IP address."""
    return ipaddress.ip_address(host).is_loopback
