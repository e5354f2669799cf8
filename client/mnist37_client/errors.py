"""What can go wrong, as exceptions; the mirror image of the server's status codes.

Mnist37Error
├── InvalidInput        a value that is never right; a ValueError too
├── NotFound            a version that the server does not keep
├── AlreadyExists       a request_id that was used for something else
├── Aborted             a run that cannot go on, since another write came between
├── Exhausted           the server, its disk or its device is full, or a message is too large
├── Unauthenticated     the server does not know the token, or this client not the server
├── PermissionDenied    the token's role does not allow it
├── Unavailable         nobody listens there, or the server has to end or be started again
├── DeadlineExceeded    no answer within the timeout
├── Cancelled           the call was cancelled
└── ServerError         a fault of the server; the message has an id for its log

Each has a `reason` for programs, where the server gives one; the README lists them.
"""

from __future__ import annotations


class Mnist37Error(Exception):
    """Any failure of a call."""

    reason: str | None = None  # a name that stays, such as TOO_MANY_PENDING_WRITES
    retry_after: float | None = None  # seconds, where the same call may well succeed later


class InvalidInput(Mnist37Error, ValueError):
    """A value that is never right: says which, what came and what would be right."""

    field: str | None = None  # of the request; None where the client found it, before sending


class NotFound(Mnist37Error):
    """A version of the model that the server does not keep."""


class AlreadyExists(Mnist37Error):
    """A request_id that was used before, for another method or other values."""


class Aborted(Mnist37Error):
    """A run that was interrupted cannot go on, since another write came between."""


class Exhausted(Mnist37Error):
    """The server has no room for this call, or a message is larger than it takes."""


class Unauthenticated(Mnist37Error):
    """One of the two cannot prove who it is.

    The client's token is missing or unknown; or the server's certificate is not to be trusted.
    """


class PermissionDenied(Mnist37Error):
    """The server knows the token, whose role does not allow the call."""


class Unavailable(Mnist37Error):
    """Nobody listens at the address, or the server is shutting down, or has lost its device."""


class DeadlineExceeded(Mnist37Error):
    """There was no answer within the timeout."""


class Cancelled(Mnist37Error):
    """The call was cancelled before its answer came."""


class ServerError(Mnist37Error):
    """A fault of the server; the message has an id that its log has too."""


def deadline_exceeded(address: str) -> DeadlineExceeded:
    """The exception for an answer that did not come in time."""
    return DeadlineExceeded(f"{address} did not answer within the timeout")
