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
    # Positions that the client has seen too and that may be later, one for each start: it is not
    # known yet which start comes first. Until the owner has answered with this floor, only it can
    # answer a read: a follower that has this start may lack what is later.
    unproven: tuple[tuple[int, int], ...] = ()

    def put_into(self, request: Read) -> None:
        """Set the floor of a request."""
        if self.start:
            request.start = self.start
            request.min_version = self.version
        elif request.HasField("start"):  # of an earlier attempt
            request.ClearField("start")
            request.ClearField("min_version")

    def raised_to(self, start: int, version: int, *, proves: bool) -> Floor:
        """Return the floor at a position that is not earlier.

        Args:
            start: of the position.
            version: of the position.
            proves: whether the position is that of an owner that was asked for its proof.
        """
        settled = [each for each in self.unproven if proves or each[0] == start]
        version = max(version, self.version, *(other for _, other in settled))
        left = tuple(each for each in self.unproven if each not in settled)
        return Floor(self.era, start, version, left)

    def with_unproven(self, start: int, version: int) -> Floor:
        """Return the floor with a position that may be later."""
        versions = dict(self.unproven)
        if version <= versions.get(start, -1):
            return self
        return self._replace(unproven=tuple({**versions, start: version}.items()))


class Session:
    """The position of one client, whose threads share it.

    `floor` is one immutable value, which is replaced as a whole: to read it takes no lock.
    """

    def __init__(self) -> None:
        # guarded by _lock: the changes of floor
        self._lock = threading.Lock()
        self.floor = Floor()

    def record_read(self, sent: Floor, start: int, version: int) -> None:
        """Raise the floor to the position of an answer to a read.

        A start that is not the session's is later if the server has accepted the session's start,
        as one in its history. A start of 0 is an older server's, and changes nothing.

        Args:
            sent: the floor with which the request was sent.
            start: of the answer.
            version: of the answer.
        """
        floor = self.floor
        if start == floor.start and version <= floor.version and not floor.unproven:
            return  # mostly; without the lock
        with self._lock:
            floor = self.floor
            if not start or sent.era != floor.era:
                return
            if floor.start in (0, start, sent.start):
                proves = sent.unproven is floor.unproven
                self.floor = floor.raised_to(start, version, proves=proves)
            elif start != sent.start:  # otherwise it is earlier: the session has left that start
                self.floor = floor.with_unproven(start, version)

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
                self.floor = floor.raised_to(start, version, proves=False)
            else:
                self.floor = floor.with_unproven(start, version)

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
            return True
