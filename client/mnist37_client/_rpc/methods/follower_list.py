"""The followers of a client: those that its caller named, or those of the owner's list.

The owner's list is asked for before the first read, then every few seconds while there are calls,
and soon after a read that no follower has answered. So followers that move are found.
"""

from __future__ import annotations

import math
import random
import threading
import time

from mnist37_client._rpc.channel import ConnectionSettings
from mnist37_client._rpc.messages.responses import parse_followers

REFRESH_SECONDS = 5.0  # between two requests for the list, at most
RETRY_SECONDS = 1.0  # after a failed read, and while there are no followers


class FollowerList:
    """The followers of one client, whose threads and event loops share it.

    Attributes:
        replicas: the followers; None if there are none. It is replaced as a whole.
        is_known: whether `replicas` is known; until then the owner must be asked.
        may_have_some: whether there may be followers, now or later.

    Args:
        settings: of the client's connections.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self.replicas = settings.replicas
        self.is_known = not settings.lists_followers
        self.may_have_some = settings.lists_followers or settings.replicas is not None
        # guarded by _lock: the changes of replicas, and of these times of time.monotonic
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._due_at = math.inf

    def __str__(self) -> str:
        return "no follower" if self.replicas is None else str(self.replicas)

    def begin_refresh(self) -> bool:
        """Return whether it is time to ask for the list again; the next call returns False."""
        if time.monotonic() < self._due_at:  # mostly; without the lock
            return False
        with self._lock:
            now = time.monotonic()
            is_due = now >= self._due_at
            if is_due:
                self._plan(now, REFRESH_SECONDS)
            return is_due

    def record(self, content: bytes) -> None:
        """Take over the list in a ListFollowersResponse.

        Raises:
            InvalidInput: none of its followers can be asked; the former list stays.
            InvalidResponse: the answer is not valid; the former list stays.
        """
        listed = parse_followers(content)
        replicas = self._settings.accept_listed(each.address for each in listed if each.address)
        with self._lock:
            if replicas != self.replicas:
                self.replicas = replicas
            self.is_known = True
            self._plan(time.monotonic(), REFRESH_SECONDS if replicas else RETRY_SECONDS)

    def record_failure(self) -> None:
        """Ask for the list soon: no follower has answered a read."""
        if math.isinf(self._due_at):
            return
        with self._lock:
            self._due_at = min(self._due_at, self._asked_at + RETRY_SECONDS)

    def _plan(self, now: float, seconds: float) -> None:
        self._asked_at = now
        # Random, so that clients spread their requests.
        self._due_at = now + seconds * random.uniform(0.5, 1)
