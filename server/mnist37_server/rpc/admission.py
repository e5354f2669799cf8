"""A limit on the number of open streams, of which no caller can keep the others out."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from mnist37_server.errors import Exhausted, Reason


class StreamLimit:
    """A limit on open streams, whose places the callers share.

    While places are free, a caller may take all of them. Once they are taken, a caller with fewer
    streams gets the place of a caller with more: the newest stream of that caller is cancelled. So
    one that leaves all its streams open keeps nobody out.

    Args:
        size: how many streams may be open at a time.
        kind: what the streams are called in the text of the refusal, in the plural.
        is_open: whether the method needs no token. Then a caller can show any, and the hosts tell
            the callers apart; otherwise their tokens do.
    """

    def __init__(self, size: int, kind: str, *, is_open: bool = False) -> None:
        self._size = size
        self._refusal = f"{size} {kind} are open already; try again later"
        self._is_open = is_open
        # guarded by _lock: _open, _count
        self._lock = threading.Lock()
        self._open: dict[str, list[grpc.ServicerContext]] = defaultdict(list)  # newest last
        self._count = 0

    @contextmanager
    def admit(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Hold a place for a stream.

        Raises:
            Exhausted: all places are taken, and no caller has two streams more than this one.
        """
        caller = self._caller(context)
        with self._lock:
            displaced = self._make_room(caller) if self._count >= self._size else None
            self._open[caller].append(context)
            self._count += 1
        if displaced is not None:
            displaced.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._remove(caller, context)

    def _make_room(self, newcomer: str) -> grpc.ServicerContext:
        """Take a stream off the list; return it, so that it is cancelled."""
        caller = max(self._open, key=lambda caller: len(self._open[caller]), default=newcomer)
        # With a difference of one, the two would displace each other for ever.
        if len(self._open[caller]) < len(self._open.get(newcomer, ())) + 2:
            raise Exhausted(self._refusal, Reason.TOO_MANY_STREAMS)
        stream = self._open[caller][-1]
        self._remove(caller, stream)
        return stream

    def _remove(self, caller: str, stream: grpc.ServicerContext) -> None:
        """Take a stream off the list unless it has been displaced."""
        streams = self._open.get(caller, [])
        if stream in streams:
            streams.remove(stream)
            self._count -= 1
        if not streams:
            self._open.pop(caller, None)

    def _caller(self, context: grpc.ServicerContext) -> str:
        """Return what tells a caller from others: its token, or its host."""
        if not self._is_open:
            for name, value in context.invocation_metadata():
                if name == "authorization":
                    return str(value)
        return context.peer().rpartition(":")[0]  # "ipv4:127.0.0.1:50000" without the port
