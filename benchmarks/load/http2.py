"""The part of HTTP/2 that a unary call needs, for latencies: one call at a time, and an open loop.

In an open loop a call is sent when it is due, whether or not earlier calls were answered, and its
latency counts from its due time. A client that waits for responses sends nothing while the server
stalls, and does not see how long other callers would have waited ("coordinated omission").

The frames are written by hand, because a gRPC client in Python takes as much time for a call as the
server, and would measure itself. This module takes a tenth of that time. RFC 9113 defines the
frames, RFC 7541 the headers.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections import Counter

from benchmarks.load.h2load import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4  # the numbers of settings
WINDOW_DEFAULT = 65_535  # bytes that may be sent before the receiver's first WINDOW_UPDATE
WINDOW_MAX = 2**31 - 1  # bytes
SETTING = struct.Struct(">HI")  # its number and its value
STREAMS_DEFAULT = 100  # that may be open before the receiver's settings; the least it should allow
TIMEOUT_SECONDS = 10.0  # without a single response


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one HTTP/2 frame (RFC 9113, section 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def request_headers(address: str, rpc: str) -> bytes:
    """Return the headers of a call, each as a literal or by its number in HPACK's static table."""

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
    """Calls with one small body, over one connection.

    Args:
        address: HOST:PORT of the server.
        rpc: the name of a unary method.
        body: the body of each call, less than 16 kB.
        answer_bytes: the minimum size of each response's body, in bytes; a failed call has no body.
    """

    def __init__(self, address: str, rpc: str, body: bytes, answer_bytes: int) -> None:
        self._headers, self._body, self._answer_bytes = (
            request_headers(address, rpc),
            body,
            answer_bytes,
        )
        self._stream = -1  # the newest stream; a client's numbers are odd
        self._window = WINDOW_DEFAULT
        self._open_streams, self._streams_max = 0, STREAMS_DEFAULT
        self._received_bytes: Counter[int] = Counter()  # by stream
        self._buffer = bytearray()
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        setting = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + WINDOW_MAX.to_bytes(4, "big")
        more = (WINDOW_MAX - WINDOW_DEFAULT).to_bytes(4, "big")
        self._socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, setting) + frame(WINDOW_UPDATE, 0, 0, more)
        )

    def one_at_a_time(self, seconds: float) -> list[float]:
        """Make one call after the other, without a pause, and return their latencies in seconds."""
        latencies = []
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            while not self._can_send():
                self._receive()
            self._send()
            while not self._receive():
                pass
            latencies.append(time.perf_counter() - start)
        return latencies

    def open_loop(self, rate: float, seconds: float) -> list[float]:
        """Make `rate` calls a second and return their latencies in seconds, from their due times.

        The calls are due at random times (a Poisson process), as those of many independent clients.
        The seed is fixed, so each measurement has the same times.
        """
        generator = random.Random(37)
        gaps = [generator.expovariate(rate) for _ in range(round(rate * seconds))]
        latencies: list[float] = []
        due_times: dict[int, float] = {}  # by stream
        next_due = time.perf_counter() + gaps[0]
        sent = 0
        while len(latencies) < len(gaps):
            while sent < len(gaps) and next_due <= time.perf_counter() and self._can_send():
                due_times[self._send()] = next_due
                sent += 1
                if sent < len(gaps):
                    next_due += gaps[sent]
            left = next_due - time.perf_counter() if sent < len(gaps) else TIMEOUT_SECONDS
            # If the next call is late because the server allows no more, frames of its come first.
            wait = left if left > 0 else TIMEOUT_SECONDS if not self._can_send() else 0
            if select.select([self._socket], [], [], wait)[0]:
                streams = self._receive()
                now = time.perf_counter()
                latencies += [now - due_times.pop(stream) for stream in streams]
            elif wait >= TIMEOUT_SECONDS:
                raise RuntimeError("the server answers no more")
        return latencies

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _can_send(self) -> bool:
        return self._window >= len(self._body) and self._open_streams < self._streams_max

    def _send(self) -> int:
        self._stream += 2
        self._open_streams += 1
        self._window -= len(self._body)
        self._socket.sendall(
            frame(HEADERS, END_HEADERS, self._stream, self._headers)
            + frame(DATA, END_STREAM, self._stream, self._body)
        )
        return self._stream

    def _receive(self) -> list[int]:
        """Wait for bytes from the server and return the streams that these end."""
        received = self._socket.recv(65_536)
        if not received:
            raise RuntimeError("the server closed the connection")
        buffer = self._buffer
        buffer += received
        ended_streams, start = [], 0
        while len(buffer) - start >= 9:
            stop = start + 9 + int.from_bytes(buffer[start : start + 3], "big")
            if stop > len(buffer):
                break
            kind, flags = buffer[start + 3], buffer[start + 4]
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big")
            if self._handle(kind, flags, stream, bytes(buffer[start + 9 : stop])):
                ended_streams.append(stream)
            start = stop
        del buffer[:start]
        return ended_streams

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Handle a frame and return whether it ends its stream."""
        if kind == DATA:
            self._received_bytes[stream] += len(payload)
        elif kind == HEADERS and flags & END_STREAM:
            if self._received_bytes.pop(stream, 0) < self._answer_bytes:
                raise RuntimeError("a call failed")
            self._open_streams -= 1
            return True
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            if kind == SETTINGS:
                settings = dict(SETTING.iter_unpack(payload))
                self._streams_max = settings.get(MAX_CONCURRENT_STREAMS, WINDOW_MAX)
            self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            raise RuntimeError("the server ended a call or the connection")
        return False
