"""Refuse the calls of a client in a forked process, and at the end of the interpreter.

A forked process has copies of the sockets, and none of gRPC's threads. A call there would wait for
ever, or write into a connection of the parent. In an interpreter that ends, a stream would wait for
a thread that never starts.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn, Self

from mnist37_client.errors import Cancelled, Mnist37Error

FIRST_PROCESS = os.getpid()


class Lifetime:
    """The lifetime of a client, in the process that has made it.

    Args:
        address: for the errors.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Return whether this is another process than the client's."""
        return os.getpid() != self._process

    def check(self) -> None:
        """Raise a Mnist37Error unless the client can make calls.

        Raises:
            Mnist37Error: a fork has made this process.
            Cancelled: the interpreter is ending.
        """
        if self.is_forked:
            raise Mnist37Error(
                f"{self._address}: the client was made in process {self._process}, whose"
                " connections a fork does not copy; make another client in this process"
            )
        if sys.is_finalizing():
            raise Cancelled(f"{self._address}: Python is ending; make calls before its end")


class GuardedStream:
    """A stream of answers that checks its client's lifetime before each of them.

    Args:
        call: as grpc returns it.
        lifetime: of the client.
    """

    def __init__(self, call: Any, lifetime: Lifetime) -> None:  # noqa: ANN401 - it has no types
        self._call = call
        self._lifetime = lifetime

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        self._lifetime.check()
        answer: bytes = next(self._call)
        return answer

    def cancel(self) -> bool:
        """End the call; in a forked process, leave it to the parent."""
        return False if self._lifetime.is_forked else bool(self._call.cancel())


class NotCopied:
    """A base class for objects with connections, which can be neither copied nor pickled."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Raise a Mnist37Error, for pickle and copy."""
        kind = type(self).__name__
        raise Mnist37Error(
            f"{kind}: has connections and can be neither pickled nor copied; make a client where it"
            " is needed"
        )


def is_forked_process() -> bool:
    """Return whether a fork has made this process since the client was imported."""
    return os.getpid() != FIRST_PROCESS
