"""The loop that keeps a follower up to date: it follows the owner, and connects again and again."""

from __future__ import annotations

import logging
import random
import threading
import time

import grpc

from mnist37_server.domain.address import for_callers
from mnist37_server.domain.position import Position
from mnist37_server.domain.route import Route
from mnist37_server.errors import CannotStart
from mnist37_server.follower.owner_failures import explain
from mnist37_server.follower.replica import InvalidUpdate, Replica
from mnist37_server.follower.upstream import FollowStream, Upstream, route_of_refusal

# The owner sends a message at least once a second. After this long without one it is paused, or
# the network is broken.
STALL_SECONDS = 3.0
# A thread notes the time this often. If its last note is older than PAUSE_SECONDS, this process was
# paused: a message that waited in a buffer meanwhile tells what was the newest version then.
TICK_SECONDS, PAUSE_SECONDS = 0.2, 0.6
# A start that this follower does not know is taken for one of another history only as long as the
# owner was heard this lately: then the connection still stands.
LATELY_SECONDS = 1.5
# The end of a stream that is at least this old is no fault if the next stream begins at once: an
# owner with --max-connection-age ends each connection. Ends that come sooner are a fault.
STEADY_SECONDS = 1.0
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.1, 2.0

log = logging.getLogger(__name__)


class Stalled(Exception):
    """The messages in the buffers may be old: the owner was silent, or this process was paused."""


class Circle(Exception):
    """The server that is followed gets its versions from this follower."""


class FollowLoop:
    """The thread that follows the owner, and the thread that notices that the owner is silent.

    Args:
        upstream: the connection to the owner.
        replica: gets the owner's messages.
        flag: has the owner's address, and begins the flags of the way there.
    """

    def __init__(self, upstream: Upstream, replica: Replica, flag: str = "--follow") -> None:
        self._flag = flag
        self._upstream = upstream
        self._replica = replica
        self._is_closed = threading.Event()
        self._stream: FollowStream | None = None  # the open one
        self._heard_at = 0.0  # when its last message came, or when it was opened
        self._is_connected = False  # whether a message has come on it
        self._is_owner_lost = False  # whether the server that is followed has lost the owner
        self._ticked_at = time.monotonic()  # the last note of the thread that notes the time
        self._stall = ""  # why `_watch` has ended the stream
        self._opened_at = 0.0  # when the last stream was opened
        self._failure = ""  # the last one that was logged since the owner was heard
        self._unlogged_end = ""  # of the stream before, while it is not known to be a fault
        self._threads = [
            threading.Thread(target=self._run, name="follow", daemon=True),
            threading.Thread(target=self._watch, name="follow-watch", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, without a wait."""
        self._is_closed.set()
        stream = self._stream
        if stream is not None:
            stream.end()
        self._upstream.close()

    @property
    def is_connected(self) -> bool:
        """Return whether the follower hears the owner, over however many followers."""
        is_silent = self._silent_seconds() >= STALL_SECONDS
        return self._is_connected and self._replica.is_heard and not is_silent

    def heard_lately(self) -> bool:
        """Return whether each connection on the way to the owner certainly stands."""
        age = self._replica.age
        is_heard = self._is_connected and self._replica.is_heard
        return is_heard and age is not None and age < LATELY_SECONDS

    def _silent_seconds(self) -> float:
        return time.monotonic() - self._heard_at

    def _run(self) -> None:
        delay = RETRY_SECONDS_MIN
        while not self._is_closed.is_set():
            is_end = False  # of the stream, by the owner or the network
            try:
                self._follow()
                failure, is_end = "the owner ended the stream", True
            except grpc.RpcError as error:
                failure, is_end = explain(error, self._flag), True
            except InvalidUpdate as error:
                failure = f"the owner sent what no owner sends: {error}"
            except (Circle, Stalled) as error:
                failure = str(error)
            except (OSError, ValueError, CannotStart) as error:  # a file, or a closed channel
                failure = str(error)
            except Exception:
                log.exception("a message of the owner could not be taken over")
                failure = "internal error"
            was_connected, self._is_connected = self._is_connected, False
            self._replica.lose()
            if was_connected:
                delay = RETRY_SECONDS_MIN
            was_steady = time.monotonic() - self._opened_at >= STEADY_SECONDS
            if was_connected and was_steady and is_end:
                self._unlogged_end = failure
            else:
                self._log_unlogged_end()
                self._log_failure(was_connected, failure)
            # Followers that have lost one owner do not all come back at the same moment.
            self._is_closed.wait(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, RETRY_SECONDS_MAX)

    def _follow(self) -> None:
        self._upstream.connect()
        self._opened_at, self._stall = time.monotonic(), ""
        self._heard_at = self._opened_at
        held = self._replica.position
        stream = self._upstream.follow(held)
        self._stream = stream
        try:
            for update in stream:
                # Before anything else: the process may be paused at each line.
                now = time.monotonic()
                self._check_stall(now)
                if self._stall:  # `_watch` has noted the time since this message came
                    raise Stalled(self._stall)
                if update.starts:
                    self._take_route(update.route)
                self._replica.receive(update, now)
                self._heard_at = now
                if not self._is_connected:
                    self._is_connected = True
                    self._log_connection(update.position, held)
                if self._is_owner_lost == update.is_heard:
                    self._is_owner_lost = not update.is_heard
                    self._log_cut()
        except grpc.RpcError as error:
            if self._stall:  # `_watch` has ended it
                raise Stalled(self._stall) from None
            if self._replica.position is None:  # otherwise the way is that on which it came
                self._take_route(route_of_refusal(error))
            raise
        finally:
            self._stream = None
            stream.end()

    def _take_route(self, told: Route) -> None:
        """Note the way from the owner to this follower.

        Args:
            told: the way to the server that is followed; empty if that is the owner.

        Raises:
            Circle: this follower is on that way.
        """
        name, address = self._upstream.name, self._upstream.address
        if name not in told.followers:
            owner = told.owner or for_callers(address)
            self._replica.route = Route(owner, (*told.followers, name))
            return
        # Cut to one round, in which the others in the circle find themselves too.
        later = told.followers[told.followers.index(name) + 1 :]
        self._replica.route = Route(for_callers(address), (*later, name))
        count = len(later) + 1
        if count == 1:
            raise Circle(f"{address} is this server itself; {self._flag} must name another one")
        raise Circle(
            f"{address} follows this server in turn: {count} followers are in a circle, and none of"
            " them hears an owner"
        )

    def _check_stall(self, now: float) -> None:
        """Raise Stalled if the messages that come now may be old."""
        if now - self._ticked_at > PAUSE_SECONDS:
            raise Stalled(f"this process was paused for {now - self._ticked_at:.1f} seconds")
        if now - self._heard_at > STALL_SECONDS:
            raise Stalled(f"nothing came for {STALL_SECONDS:g} seconds")

    def _watch(self) -> None:
        while not self._is_closed.wait(TICK_SECONDS):
            now = time.monotonic()
            stream = self._stream
            if stream is not None:
                try:
                    self._check_stall(now)
                except Stalled as stall:
                    self._stall = str(stall)
                    stream.end()
            # At last: until here the other thread finds the note too old by itself.
            self._ticked_at = now

    def _log_connection(self, position: Position, held: Position | None) -> None:
        """Log that the owner is followed; on a new connection to the process before, for debugging.

        Args:
            position: of the first message.
            held: the position before it.
        """
        fields: dict[str, object] = {"owner": self._upstream.address, "version": position.version}
        if len(self._replica.route.followers) > 1:
            owner = self._replica.route.owner
            fields |= {"owner": owner, "followed": self._upstream.address}
        if self._unlogged_end and held is not None and held.start == position.start:
            fields["end"] = self._unlogged_end
            log.debug("following the owner on a new connection", extra=fields)
        else:
            log.info("following the owner", extra=fields)
        self._failure = self._unlogged_end = ""

    def _log_cut(self) -> None:
        """Log that the server that is followed has lost the owner, or hears it again."""
        fields = {"owner": self._replica.route.owner, "followed": self._upstream.address}
        if self._is_owner_lost:
            log.warning("the owner is lost to the server that is followed", extra=fields)
        else:
            log.info("the owner is heard again by the server that is followed", extra=fields)

    def _log_unlogged_end(self) -> None:
        if self._unlogged_end:
            self._log_failure(True, self._unlogged_end)
            self._unlogged_end = ""

    def _log_failure(self, was_connected: bool, failure: str) -> None:
        """Log each failure once, and not at every attempt to connect."""
        if self._is_closed.is_set() or failure == self._failure:
            return
        self._failure = failure
        text = "the owner is lost: %s" if was_connected else "the owner cannot be followed: %s"
        position = self._replica.position
        version = None if position is None else position.version
        log.warning(text, failure, extra={"owner": self._upstream.address, "version": version})
