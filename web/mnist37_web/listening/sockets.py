"""The sockets on which web listens: all addresses of its host, on one port."""

from __future__ import annotations

import socket

from mnist37_web.errors import CannotStart

BACKLOG = 1024


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of a host; port 0 picks a free one for all.

    Raises:
        CannotStart: the host has no address, or one of them cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotStart(f"--address: {host!r} is not a host of this machine: {error}") from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            if family not in (socket.AF_INET, socket.AF_INET6):
                continue
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(BACKLOG)
            listener.setblocking(False)
            port = listener.getsockname()[1]  # the further addresses get the port of the first one
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise CannotStart(
            f"--address: cannot listen on {host}:{port}: {error.strerror or error}; is another"
            " program there? Another port, or 0 for a free one, is right"
        ) from error
    return sockets
