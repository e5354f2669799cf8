"""As little of HTTP/2 as a unary call needs, for latencies: one call at a time, and an open loop.

In an open loop a call is sent when it is due, whether or not earlier ones were answered, and its
latency counts from when it was due. A client that waits for answers sends nothing while the server
stalls, and never sees how long all the others would have waited ("coordinated omission").

The frames are written by hand since a gRPC client in Python takes as long a call as the server, and
would measure itself; this takes a tenth of it. RFC 9113 has the frames, RFC 7541 the headers.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import Counter

from benchmarks.load.h2load import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4  # a setting
FIRST_WINDOW = 65_535  # bytes that may be sent before the receiver says more
LARGEST_WINDOW = 2**31 - 1
TIMEOUT_SECONDS = 10.0  # seconds without a single answer


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def request_headers(address: str, rpc: str) -> bytes:
    """The headers of a call, each as a literal or by its number in HPACK's static table."""

    def literal(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    return b"".join(
        [
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + literal(f"{SERVICE}/{rpc}"),  # :path
            b"\x01" + literal(address),  # :authority
            b"\x0f\x10" + literal("application/grpc"),  # content-type
            b"\x00" + literal("te") + literal("trailers"),
        ]
    )


class Calls:
    """Calls with one and the same small body, over one connection.

    Args:
        address: HOST:PORT of the server.
        rpc: the name of a unary method.
        body: of each call, of less than 16 kB.
        answer: how many bytes the body of each answer has, at least; a failed call has none.
    """

    def __init__(self, address: str, rpc: str, body: bytes, answer: int) -> None:
        self._headers, self._body, self._answer = request_headers(address, rpc), body, answer
        self._stream = -1  # the newest; a client's are odd
        self._window = FIRST_WINDOW
        self._answered: Counter[int] = Counter()  # bytes, by stream
        self._buffer = bytearray()
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        setting = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + LARGEST_WINDOW.to_bytes(4, "big")
        more = (LARGEST_WINDOW - FIRST_WINDOW).to_bytes(4, "big")
        self._socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, setting) + frame(WINDOW_UPDATE, 0, 0, more)
        )

    def one_at_a_time(self, seconds: float) -> list[float]:
        """The latency of each call, in seconds, one after the other without a pause."""
        latencies = []
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            while not self._has_room():
                self._receive()
            self._send()
            while not self._receive():
                pass
            latencies.append(time.perf_counter() - began)
        return latencies

    def open_loop(self, rate: float, seconds: float) -> list[float]:
        """The latency of each call, in seconds from when it was due, `rate` calls a second.

        They come at random, as from many callers who know nothing of each other; in the same way
        each time.
        """
        chance = random.Random(37)
        gaps = [chance.expovariate(rate) for _ in range(round(rate * seconds))]
        latencies: list[float] = []
        due: dict[int, float] = {}  # by stream
        next_due = time.perf_counter() + gaps[0]
        sent = 0
        while len(latencies) < len(gaps):
            while sent < len(gaps) and next_due <= time.perf_counter() and self._has_room():
                due[self._send()] = next_due
                sent += 1
                if sent < len(gaps):
                    next_due += gaps[sent]
            left = next_due - time.perf_counter() if sent < len(gaps) else TIMEOUT_SECONDS
            # Late already: there is no room, and what makes room must come first.
            wait = left if left > 0 else TIMEOUT_SECONDS if not self._has_room() else 0
            if select.select([self._socket], [], [], wait)[0]:
                ended = self._receive()
                now = time.perf_counter()
                latencies += [now - due.pop(stream) for stream in ended]
            elif wait >= TIMEOUT_SECONDS:
                raise RuntimeError("the server answers no more")
        return latencies

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _has_room(self) -> bool:
        return self._window >= len(self._body)

    def _send(self) -> int:
        self._stream += 2
        self._window -= len(self._body)
        self._socket.sendall(
            frame(HEADERS, END_HEADERS, self._stream, self._headers)
            + frame(DATA, END_STREAM, self._stream, self._body)
        )
        return self._stream

    def _receive(self) -> list[int]:
        """Waits for some bytes; returns the streams that they end."""
        received = self._socket.recv(65_536)
        if not received:
            raise RuntimeError("the server closed the connection")
        buffer = self._buffer
        buffer += received
        ended, start = [], 0
        while len(buffer) - start >= 9:
            stop = start + 9 + int.from_bytes(buffer[start : start + 3], "big")
            if stop > len(buffer):
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            if self._take(kind, flags, stream, bytes(buffer[start + 9 : stop])):
                ended.append(stream)
            start = stop
        del buffer[:start]
        return ended

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Does what a frame asks for; returns whether it ends its stream."""
        if kind == DATA:
            self._answered[stream] += len(payload)
        elif kind == HEADERS and flags & END_STREAM:
            if self._answered.pop(stream, 0) < self._answer:
                raise RuntimeError("a call failed")
            return True
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            raise RuntimeError("the server ended a call or the connection")
        return False
