"""The session of a client: the position of all that it has seen and written, its reads' floor.

No answer to a read comes from an earlier position, whichever server answers. So reads are monotonic
and see the client's own writes.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from mnist37_protos.v1 import mnist37_pb2 as pb

Read = pb.PredictRequest | pb.GetLossRequest | pb.GetModelRequest


class Floor(NamedTuple):
    """The position of a session at one time, which a read has as its floor."""

    era: int = 0  # the number of times that the session began anew
    start: int = 0  # 0: the session has no position yet
    version: int = 0

    def put_into(self, request: Read) -> None:
        """Set the floor of a request."""
        if self.start:
            request.start = self.start
            request.min_version = self.version
        elif request.HasField("start"):  # of an earlier attempt
            request.ClearField("start")
            request.ClearField("min_version")


class Session:
    """The position of one client, whose threads share it.

    `floor` is one immutable value, which is replaced as a whole: to read it takes no lock.
    """

    def __init__(self) -> None:
        self.floor = Floor()
        # Where the owner said to be, with a start of which no read has shown that it is later than
        # the floor's. Until one has, only the owner can answer a read: a follower that still has
        # the floor's start may lack what was written since.
        self._unproven: tuple[int, int] | None = None
        # guarded by _lock: the changes of floor and _unproven
        self._lock = threading.Lock()

    @property
    def needs_owner(self) -> bool:
        """Return whether a follower's answer might be older than what the session has seen."""
        return self._unproven is not None

    def record_read(self, sent: Floor, start: int, version: int) -> None:
        """Raise the floor to the position of an answer.

        A position with another start than the session's is later only if the server has accepted
        the session's start as one in its history. A start of 0 is an older server's, and changes
        nothing.

        Args:
            sent: the floor with which the request was sent.
            start: of the answer.
            version: of the answer.
        """
        floor = self.floor
        if start == floor.start and version <= floor.version and self._unproven is None:
            return  # mostly; without the lock
        with self._lock:
            floor = self.floor
            if not start or sent.era != floor.era or floor.start not in (0, start, sent.start):
                return
            if self._unproven is not None and self._unproven[0] == start:
                version = max(version, self._unproven[1])
                self._unproven = None
            self.floor = Floor(floor.era, start, max(version, floor.version))

    def record_owner(self, sent: Floor, start: int, version: int) -> None:
        """Raise the floor to a position that the owner named to a call without a floor, a write.

        Args:
            sent: the session's floor when the call began.
            start: of the answer.
            version: of the answer.
        """
        with self._lock:
            floor = self.floor
            if not start or sent.era != floor.era:
                return
            if floor.start in (0, start):
                self.floor = Floor(floor.era, start, max(version, floor.version))
                self._unproven = None
            else:
                self._unproven = start, version

    def begin_anew(self, sent: Floor) -> bool:
        """Forget the position, for a server has this floor in no history; return whether it did.

        It does not if another call has done so since, or if the position has a later start: then
        the floor was an old one, and the request may be sent again with the present one.
        """
        with self._lock:
            floor = self.floor
            if sent.era != floor.era or sent.start != floor.start:
                return False
            self.floor = Floor(floor.era + 1)
            self._unproven = None
            return True
