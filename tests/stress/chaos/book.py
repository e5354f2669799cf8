"""The book of all that was written, against which answers are checked.

It is kept by a twin without a server. It knows for each start of each owner what every version
predicts, so an answer that names its start and version can be checked to the bit.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from mnist37_client import validation_images
from mnist37_server.domain.snapshot import Origin, Snapshot
from support.twin import Twin

IMAGES = validation_images()[0][:2].reshape(2, 784)


class Violation(AssertionError):
    """An answer that breaks a promise of the service."""


class Position(NamedTuple):
    start: int
    version: int


class Entry(NamedTuple):
    """A version as it was written once; a restored backup writes its number a second time."""

    number: int  # unique in the book
    prediction: bytes  # for IMAGES
    parameters: bytes
    batch_cursor: int


@dataclass
class History:
    """The versions that an owner has written."""

    entries: dict[int, Entry] = field(default_factory=dict)

    def fork(self, version: int) -> History:
        """Return the history up to a version, which then goes on differently."""
        return History({v: entry for v, entry in self.entries.items() if v <= version})


class Book:
    """The histories of owners, and the start of each of their processes."""

    def __init__(self) -> None:
        # guarded by _lock: all of them
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._histories: dict[int, History] = {}
        self._last_versions: dict[int, int] = {}  # of starts that have ended

    def write(self, history: History, version: int, twin: Twin) -> None:
        """Record a version that a twin has reached."""
        content = twin.parameters.numpy().astype("<f4").tobytes()
        prediction = Snapshot(version, content, 0, Origin.STEP).predict(IMAGES).tobytes()
        with self._lock:
            number = next(self._numbers)
            history.entries[version] = Entry(number, prediction, content, twin.batch_cursor)

    def begin(self, start: int, version: int, history: History, before: int | None) -> None:
        """Record that a process of an owner has begun.

        Args:
            start: the id of its start.
            version: the version at which it began.
            history: what it goes on with.
            before: the start of the process before it, which has no later version; None: it is the
                first one.
        """
        with self._lock:
            if start in self._histories:
                raise Violation(f"start {start} belongs to two processes")
            self._histories[start] = history
            if before is not None:
                self._last_versions[before] = version

    def forget_parameters(self, history: History, before: int) -> None:
        """Drop what is only needed for a fork at an old version."""
        with self._lock:
            for version in [v for v in history.entries if v < before]:
                entry = history.entries[version]
                history.entries[version] = entry._replace(parameters=b"")

    def entry(self, position: Position) -> Entry:
        """Return what was written at a position.

        Raises:
            Violation: there is no such version, not yet or not any more.
        """
        with self._lock:
            history = self._histories.get(position.start)
            if history is None:
                raise Violation(f"{position}: no owner had this start")
            entry = history.entries.get(position.version)
            if entry is None or position.version > self._last_versions.get(
                position.start, position.version
            ):
                raise Violation(f"{position}: this version was never written")
            return entry

    def contains(self, start: int, position: Position) -> bool:
        """Return whether a position is in the history of a start."""
        entry = self.entry(position)
        with self._lock:
            return self._histories[start].entries.get(position.version) == entry


def twin_at(entry: Entry) -> Twin:
    """Return a twin that goes on from what was written once."""
    twin = Twin()
    twin.parameters.copy_(twin.parameters.new_tensor(np.frombuffer(entry.parameters, "<f4")))
    twin.batch_cursor = entry.batch_cursor
    return twin
