"""The context of a call of gRPC that came over ASGI, as the server's handlers expect it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NoReturn

import grpc

Pairs = tuple[tuple[str, str | bytes], ...]

# The header grpc-timeout: up to eight digits and a unit (PROTOCOL-HTTP2.md of gRPC).
TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Aborted(Exception):
    """The end of a handler by a status that it has set in its context."""


class AsgiContext(grpc.ServicerContext):
    """The context of one call.

    Args:
        metadata: that the caller sent.
        timeout: the header grpc-timeout, or None.
        message_bytes_max: the most bytes of the caller's message.
    """

    # Defaults of the class: most calls set none of them, and there is a context for each call.
    _code: grpc.StatusCode | None = None
    _details = ""
    _trailing: Pairs = ()
    _callbacks: tuple[Callable[[], None], ...] = ()
    _is_active = True

    def __init__(self, metadata: Pairs, timeout: bytes | None, message_bytes_max: int = 0) -> None:
        self._metadata = metadata
        self.message_bytes_max = message_bytes_max
        self._deadline = inf if timeout is None else parse_deadline(timeout)

    def is_active(self) -> bool:
        """Return whether the caller still waits."""
        return self._is_active and (self._deadline == inf or time.monotonic() < self._deadline)

    @property
    def has_ended(self) -> bool:
        """Return whether the call has got its status."""
        return not self._is_active

    def time_remaining(self) -> float:
        """Return the seconds until the deadline; infinity without one."""
        return max(0.0, self._deadline - time.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call a function at the end of the call; return False if it has ended."""
        if self._is_active:
            self._callbacks = (*self._callbacks, callback)
        return self._is_active

    def end(self) -> None:
        """End the call, and call what waits for that."""
        if self._is_active:
            self._is_active = False
            for callback in self._callbacks:
                callback()

    def cancel(self) -> bool:
        """End the call."""
        self.end()
        return True

    def invocation_metadata(self) -> Pairs:
        """Return the metadata that the caller sent."""
        return self._metadata

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """Set the metadata that are sent with the status."""
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Pairs:
        """Return the metadata that are sent with the status."""
        return self._trailing

    def abort_with_status(self, status: Any) -> NoReturn:  # noqa: ANN401 - grpc.Status has no class
        """End the handler with a status.

        Raises:
            Aborted: always.
        """
        self._code, self._details = status.code, status.details
        self._trailing = (*self._trailing, *status.trailing_metadata)
        raise Aborted

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the handler with a code and a text.

        Raises:
            Aborted: always.
        """
        self._code, self._details = code, details
        raise Aborted

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the code of the status."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the text of the status."""
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        """Return the code that the handler has set, or None."""
        return self._code

    def details(self) -> str:
        """Return the text that the handler has set."""
        return self._details

    # What a server of gRPC knows and no handler here asks for.

    def peer(self) -> str:
        """Return nothing: Envoy knows the peer."""
        return ""

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return None: Envoy verifies certificates."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return None: Envoy verifies certificates."""
        return None

    def auth_context(self) -> dict[str, bytes]:
        """Return nothing: Envoy verifies certificates."""
        return {}

    def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Do nothing: no handler here sends metadata before its answer."""


def parse_deadline(timeout: bytes) -> float:
    """Return the moment on time.monotonic's clock at which a grpc-timeout ends."""
    match = TIMEOUT.fullmatch(timeout)
    if match is None:
        return inf
    return time.monotonic() + int(match[1]) * UNIT_SECONDS[match[2]]
