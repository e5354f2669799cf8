"""A relay between a client and a server, whose connections a test can cut."""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import suppress
from typing import Self


class Relay:
    """A listener that passes each connection on to a server.

    Args:
        address: HOST:PORT of the server.
    """

    def __init__(self, address: str) -> None:
        self.route(address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        # The sockets of each connection, the client's and the server's.
        self._connections: list[tuple[socket.socket, socket.socket]] = []
        self._passes = threading.Event()  # whether answers are passed on
        self._passes.set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def route(self, address: str) -> None:
        """Pass further connections on to this server, HOST:PORT."""
        host, _, port = address.rpartition(":")
        self._target = host, int(port)

    def hold(self) -> None:
        """Keep all further answers back, until `cut`."""
        self._passes.clear()

    def cut(self) -> None:
        """End all connections at once, and lose what was kept back."""
        for each in self._connections:
            _end(*each)
        self._passes.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in itertools.chain([self._listener], *self._connections):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connect(self._listener.accept()[0])

    def connect(self, client: socket.socket) -> None:
        """Pass a client's connection on to the server."""
        try:
            server = socket.create_connection(self._target)
        except OSError:  # nobody listens there now
            client.close()
            return
        self._connections.append((client, server))
        for target, arguments in (
            (self._pass_requests, (client, server)),
            (self._pass_answers, (server, client)),
        ):
            self._threads.append(threading.Thread(target=target, args=arguments))
            self._threads[-1].start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
        _end(client, server)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                self._passes.wait()
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
