"""The exceptions of the client, one for each status code that the server sends.

Mnist37Error
├── InvalidInput        a value that is never valid; also a ValueError
├── NotFound            the server does not retain this version or run
├── AlreadyExists       the request_id belongs to another request
├── Aborted             a run cannot continue, because another write was committed since
├── Exhausted           the server, its disk or its device is full, or a message is too large
├── Unauthenticated     the server rejects the token, or the client rejects the server's certificate
├── PermissionDenied    the token's role does not allow the call
├── FailedPrecondition  the server is not in the state that the call needs
│   ├── HistoryLost     the model's history does not have what the client has seen
│   └── NotOwner        a follower, which only reads, got a call that needs the owner
├── Unavailable         no server at the address, or it is shutting down or needs a restart
├── DeadlineExceeded    the server did not answer within the timeout
├── Cancelled           the call was cancelled
├── InvalidResponse     the server's answer is not what the contract says
└── ServerError         a fault of the server; the message has an id that its log has too

An exception has a `reason` for programs if the server gives one. docs/reference/errors.md lists
the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist37_client.results import Position

TEXT_MAX = 2000  # characters of an error's text; the longest texts of the server have 1,400


class Mnist37Error(Exception):
    """Base class of all failures of a call."""

    reason: str | None = None  # a name that never changes, such as TOO_MANY_PENDING_WRITES
    retry_after: float | None = None  # seconds after which the same call may succeed, if known


class InvalidInput(Mnist37Error, ValueError):
    """A value that is never valid; the message names the field, the value and the valid range."""

    field: str | None = None  # of the request; None if the client itself rejected the value


class NotFound(Mnist37Error):
    """A version of the model, or a run, that the server does not retain."""


class AlreadyExists(Mnist37Error):
    """A request_id that belongs to a request with another method or other values."""


class Aborted(Mnist37Error):
    """An interrupted run that cannot continue, because another write was committed since."""


class Exhausted(Mnist37Error):
    """A server that has no capacity for the call, or a message that exceeds its limit."""


class Unauthenticated(Mnist37Error):
    """A failed authentication, of the client or of the server.

    The client's token is missing or unknown, or the client does not trust the server's certificate.
    """


class PermissionDenied(Mnist37Error):
    """A valid token whose role does not allow the call."""


class FailedPrecondition(Mnist37Error):
    """A server that is not in the state that the call needs."""


class HistoryLost(FailedPrecondition):
    """A model whose history does not have what the client has seen or written.

    A backup was restored, or this is the model of another owner. The client raises this once; its
    next call begins a new session, without a floor.
    """

    position: Position | None = None  # the server's, if it named it
    floor: Position | None = None  # the client's


class NotOwner(FailedPrecondition):
    """A call that only the owner of the model answers, at a follower or without an owner."""


class Unavailable(Mnist37Error):
    """A server that does not listen, is shutting down, or has lost its device."""


class DeadlineExceeded(Mnist37Error):
    """A call that the server did not answer within the timeout."""


class Cancelled(Mnist37Error):
    """A call that was cancelled before its answer arrived."""


class InvalidResponse(Mnist37Error):
    """An answer that cannot be decoded or is not what the contract says, of whatever listens."""


class ServerError(Mnist37Error):
    """A fault of the server; the message has an id that the server's log has too."""


def deadline_exceeded(address: str) -> DeadlineExceeded:
    """Return the exception for a server that did not answer within the timeout."""
    return DeadlineExceeded(f"{address} did not answer within the timeout")


def one_line(text: str) -> str:
    """Return a text of others, for an error: in one line of at most TEXT_MAX characters.

    Escapes take the place of what could forge lines or control a terminal.
    """
    shown = "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )
    return shown if len(shown) <= TEXT_MAX else f"{shown[:TEXT_MAX]} …"
