"""HTTP/2 by hand, for callers and for servers that gRPC cannot play."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8  # kinds of frames
END_STREAM, ACK, END_HEADERS = 1, 1, 4  # flags
INITIAL_WINDOW_SIZE = 4  # the number of a setting
FRAME_BYTES_MAX = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def header(name: str, value: str | bytes) -> bytes:
    """Return a header of less than 127 bytes as a literal (RFC 7541, section 6.2.2)."""
    content = value.encode() if isinstance(value, str) else value
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(content)]) + content


def headers_of(path: str, *others: tuple[str, str | bytes]) -> bytes:
    """Return the header block of a gRPC call."""
    fixed = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a"}
    fixed |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(header(*pair) for pair in (*fixed.items(), *others))


def grpc_message(content: bytes) -> bytes:
    """Return a message as gRPC frames it: not compressed."""
    return b"\0" + len(content).to_bytes(4) + content


class RawConnection:
    """A connection to a gRPC server that answers pings and does nothing else unasked.

    Args:
        address: HOST:PORT of the server.
        window: how many bytes the server may send on each stream.
        reads: whether anything is read from the socket.
    """

    def __init__(self, address: str, window: int = 65_535, *, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._next_stream = 1
        # guarded by _changed: the windows for sending, the ends of streams
        self._changed = threading.Condition()
        self._window, self._stream_window, self._windows = 65_535, 65_535, dict[int, int]()
        self.ends: dict[int, bytes] = {}  # the frame that ended each stream
        self.is_closed = False
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._send_lock = threading.Lock()
        if reads:
            threading.Thread(target=self._read, daemon=True).start()
        else:
            self._socket.settimeout(1)  # to send, where the server takes no more

    def begin(self, path: str, *headers: tuple[str, str | bytes]) -> int:
        """Send the headers of a call, and return its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.send(frame(HEADERS, END_HEADERS, stream, headers_of(path, *headers)))
        return stream

    def send_data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send data of a call, as far as the server's windows let it within 30 seconds."""
        deadline = time.monotonic() + 30
        offset = 0
        while True:
            with self._changed:
                self._windows.setdefault(stream, self._stream_window)
                while (
                    min(self._window, self._windows[stream]) <= 0
                    and offset < len(data)
                    and not (self.is_closed or stream in self.ends)
                ):
                    if not self._changed.wait(deadline - time.monotonic()):
                        return
                if self.is_closed or stream in self.ends:
                    return
                size = min(self._window, self._windows[stream], FRAME_BYTES_MAX, len(data) - offset)
                self._window -= size
                self._windows[stream] -= size
            part = data[offset : offset + size]
            offset += size
            is_last = offset == len(data)
            self.send(frame(DATA, END_STREAM if end and is_last else 0, stream, part))
            if is_last:
                return

    def call(self, path: str, content: bytes = b"", *headers: tuple[str, str | bytes]) -> int:
        """Send a whole call, and return its stream."""
        stream = self.begin(path, *headers)
        self.send_data(stream, grpc_message(content), end=True)
        return stream

    def call_at_once(self, path: str, count: int) -> list[int]:
        """Send so many calls with empty messages in one piece, and return their streams."""
        streams = [self._next_stream + 2 * number for number in range(count)]
        self._next_stream += 2 * count
        block = headers_of(path)
        self.send(
            b"".join(
                frame(HEADERS, END_HEADERS, stream, block)
                + frame(DATA, END_STREAM, stream, grpc_message(b""))
                for stream in streams
            )
        )
        return streams

    def wait(self, stream: int, seconds: float = 20) -> bytes | None:
        """Return the last frame of a stream's answer; None if it does not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: stream in self.ends or self.is_closed, seconds)
            return self.ends.get(stream)

    def send(self, data: bytes) -> None:
        """Send raw bytes; nothing if the server takes no more."""
        with self._send_lock:
            if not self.is_closed:
                try:
                    self._socket.sendall(data)
                except OSError:
                    self.is_closed = True

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        file = self._socket.makefile("rb")
        with suppress(OSError, ValueError):
            self._socket.settimeout(None)
            while len(head := file.read(9)) == 9:
                size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
                stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
                self._take(kind, flags, stream, file.read(size))
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        with self._changed:
            if kind == SETTINGS:
                for number, value in struct.iter_unpack(">HI", payload):
                    if number == INITIAL_WINDOW_SIZE:
                        for other in self._windows:
                            self._windows[other] += value - self._stream_window
                        self._stream_window = value
            elif kind == WINDOW_UPDATE:
                increment = int.from_bytes(payload)
                if stream == 0:
                    self._window += increment
                else:
                    self._windows.setdefault(stream, self._stream_window)
                    self._windows[stream] += increment
            elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
                self.ends.setdefault(stream, payload)  # a reset may follow on the status
            self._changed.notify_all()


class RawServer:
    """A web server that answers each call with frames that a test chooses, for example a proxy's.

    Args:
        answer: returns the frames for a stream.
    """

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as file:
            file.read(len(PREFACE))
            connection.sendall(frame(SETTINGS, 0, 0))
            while len(head := file.read(9)) == 9:
                size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
                stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
                payload = file.read(size)
                if kind == PING and not flags & ACK:
                    connection.sendall(frame(PING, ACK, 0, payload))
                elif kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))
                elif kind == HEADERS:
                    connection.sendall(self.answer(stream))


def http_answer(status: int) -> Callable[[int], bytes]:
    """Return the answer of a web server that does not speak gRPC."""
    block = header(":status", str(status)) + header("content-type", "text/html")

    def answer(stream: int) -> bytes:
        body = frame(DATA, END_STREAM, stream, b"<html></html>")
        return frame(HEADERS, END_HEADERS, stream, block) + body

    return answer


def reset(code: int) -> Callable[[int], bytes]:
    """Return the answer of a proxy that resets each call with an error code of HTTP/2."""
    return lambda stream: frame(RESET, 0, stream, code.to_bytes(4))
