"""The start of listening: on all addresses of a name, or not at all.

gRPC is content with one address of a name. If another server has the others, both would listen at
one name, and each caller would reach one of the two.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc

from mnist37_server.domain.address import LOCALHOST, UNIX, WILDCARDS, Address, join
from mnist37_server.errors import CannotStart

FREE_PORT_ATTEMPTS = 20  # for a port that is free at all addresses of a name
CONNECT_SECONDS = 1.0
# A name may have addresses that the machine does not have: of IPv6, for example. Nobody gets there.
ADDRESS_MISSING = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def listen(
    server: grpc.Server, address: Address, credentials: grpc.ServerCredentials | None
) -> Address:
    """Have a server listen at an address; return the address with its port.

    Raises:
        CannotStart: it cannot listen there.
    """
    if address.path is not None:
        check_socket_file(address.path)
        targets = [f"{UNIX}{address.path}"]
    else:
        hosts, port = find_port("--address", address)
        address = Address(address.host, port)
        targets = [join(host, port) for host in hosts]
    for target in targets:
        try:
            if credentials is None:
                server.add_insecure_port(target)
            else:
                server.add_secure_port(target, credentials)
        except RuntimeError as error:
            raise CannotStart(
                f"--address: cannot listen on {target}; name another address"
            ) from error
    return address


def find_port(flag: str, address: Address) -> tuple[list[str], int]:
    """Return the addresses to listen at for a host, and a port that is free at all of them.

    Raises:
        CannotStart: there is none, or the port is in use at one of them.
    """
    hosts = resolve(flag, address)
    for attempt in range(FREE_PORT_ATTEMPTS):
        try:
            usable, port = try_port(hosts, address.port)
        except OSError as error:
            is_last = attempt == FREE_PORT_ATTEMPTS - 1
            if error.errno != errno.EADDRINUSE or address.port or is_last:
                in_use = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
                raise CannotStart(
                    f"{flag}: cannot listen on {address}: {in_use}; name another HOST:PORT, or port"
                    " 0 for a free one"
                ) from error
        else:
            return [address.host] if address.host in WILDCARDS else usable, port
    raise AssertionError("the last attempt returns or raises")


def resolve(flag: str, address: Address) -> list[str]:
    """Return the addresses of a host, each once.

    Raises:
        CannotStart: there is no such host.
    """
    if address.host in WILDCARDS:
        return ["::", "0.0.0.0"]
    if address.host == LOCALHOST:
        return ["127.0.0.1", "::1"]  # as gRPC's clients resolve it, whatever the system says
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise CannotStart(f"{flag}: there is no host {address.host!r}; name another one") from error
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def try_port(hosts: Sequence[str], port: int) -> tuple[list[str], int]:
    """Return those of the hosts that this machine has, and the port, if it is free at all of them.

    Args:
        hosts: the addresses.
        port: the port; 0 picks one that is free at the first of them.

    Raises:
        OSError: the port is not free, or the machine has none of the addresses.
    """
    usable: list[str] = []
    missing: OSError | None = None
    with ExitStack() as probes:
        for host in hosts:
            try:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                probe = probes.enter_context(socket.socket(family, socket.SOCK_STREAM))
                # As gRPC does: connections that have ended do not hold the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4])
            except OSError as error:
                if error.errno not in ADDRESS_MISSING:
                    raise
                missing = error
            else:
                usable.append(host)
                port = probe.getsockname()[1]
    if not usable and missing is not None:
        raise missing
    return usable, port


def check_socket_file(path: Path) -> None:
    """Raise CannotStart if a path is in use; gRPC replaces each socket file, in use or not."""
    try:
        if not path.parent.is_dir():
            raise CannotStart(f"--address: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise CannotStart(f"--address: cannot write to {path.parent}")
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotStart(f"--address: {path} is a file, and not a socket; name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_SECONDS)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return  # there is none, or its server has ended
    except OSError as error:
        raise CannotStart(f"--address: cannot listen on {path}: {error.strerror}") from error
    raise CannotStart(f"--address: another server listens on unix:{path}; name another path")
