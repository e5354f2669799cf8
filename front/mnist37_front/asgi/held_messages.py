"""The messages of which a part has come, bounded in the bytes of all of them together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from mnist37_front.asgi.context import AsgiContext

HELD_BYTES_MAX = 256 << 20  # a quarter of the heap from which Envoy takes no further requests
MESSAGES_MIN = 4  # of the largest size, for which there is room in any case


class _Held:
    """A call of which a part of the message is held: how much, and how to end the call."""

    __slots__ = ("_drop", "_loop", "is_dropped", "is_reading", "size")

    def __init__(self, loop: asyncio.AbstractEventLoop, drop: Callable[[], object]) -> None:
        self._loop = loop
        self._drop = drop
        self.size = 0  # bytes
        self.is_reading = True  # whether more of the message is to come
        self.is_dropped = False

    def drop(self) -> None:
        """End the call in its event loop, unless it has all of its message by then."""
        self.is_dropped = True
        with suppress(RuntimeError):  # the loop has ended, and the call with it
            self._loop.call_soon_threadsafe(lambda: self.is_reading and self._drop())


class HeldMessages:
    """The calls that hold a part of their message, or all of it until they are answered.

    A message is held from its second part on; most come in one. Where all of them together take too
    much, the call that began first to send one is dropped: an honest caller sends its message
    without a break, and a half-sent one is soon the oldest. Without this, 17 half-sent messages
    would be the heap from which Envoy refuses everybody.

    Args:
        message_bytes_max: the most bytes of one message.
        bytes_max: the most bytes of all of them.
    """

    def __init__(self, message_bytes_max: int, bytes_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max = max(bytes_max, MESSAGES_MIN * message_bytes_max)
        # guarded by _lock, because each listener has its own event loop: the fields below
        self._lock = threading.Lock()
        self._calls: dict[AsgiContext, _Held] = {}  # the one that began first at the front
        self._bytes = 0  # of all calls

    def add(self, context: AsgiContext, size: int, drop: Callable[[], object]) -> None:
        """Note a part of a call's message, and drop the oldest calls if it is too much.

        Args:
            context: of the call, at whose end the message is no longer held.
            size: of the part, in bytes.
            drop: ends the call, in the event loop that runs now, while its message is read.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            held = self._calls.get(context)
            if held is None:
                if not context.add_callback(lambda: self._release(context)):
                    return
                held = self._calls[context] = _Held(loop, drop)
            if held.is_dropped:
                return
            held.size += size
            self._bytes += size
            while self._bytes > self._bytes_max and (oldest := self._oldest()) is not None:
                self._bytes -= oldest.size
                oldest.drop()

    def complete(self, context: AsgiContext) -> None:
        """Note that a call has all of its message, or none: it is not dropped from now on."""
        if held := self._calls.get(context):
            held.is_reading = False

    def _oldest(self) -> _Held | None:
        return next(
            (held for held in self._calls.values() if held.is_reading and not held.is_dropped), None
        )

    def _release(self, context: AsgiContext) -> None:
        with self._lock:
            held = self._calls.pop(context)
            if not held.is_dropped:
                self._bytes -= held.size
