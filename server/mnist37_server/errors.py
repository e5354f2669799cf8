"""The exceptions of the server. They do not depend on gRPC: mnist37_server.rpc.status maps them.

Refusal                   a request that is not carried out; the text is for the caller
├── InvalidArgument       a field's value is invalid in every state of the model
├── MalformedMessage      the bytes of a message cannot be decoded
├── NotFound              a version or run is not retained, or there is no such tag
├── AlreadyExists         a request_id was used before, for another request
├── Aborted               a run cannot be resumed: another write was committed after it
├── Exhausted             too many callers, or no space on the disk or on the device
├── StorageBusy           another process locks the database
├── FailedPrecondition    the caller's floor is in no history of this model, or a follower is asked
│                         for what only the owner does
├── Unavailable           a follower is behind the caller's floor, too old, or without its owner
├── ShuttingDown          the server accepts no more writes: it stops, or has to be restarted
├── Unauthenticated       the caller has no valid token
├── PermissionDenied      the caller's role does not allow the call
├── CallerCancelled       the caller cancelled the call, or its deadline passed while it waited
└── DeadlineExceeded      the deadline passed before the call started
CannotStart               an option with which the server cannot start
"""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """The reason of a refusal, for programs.

    From release 0.1.0 on these names never change. The texts of refusals may change.
    """

    INVALID_FIELD = auto()
    MALFORMED_MESSAGE = auto()
    NOT_FOUND = auto()  # for anything but the three below
    VERSION_NOT_RETAINED = auto()
    RUN_NOT_RETAINED = auto()
    TAG_UNKNOWN = auto()
    REQUEST_ID_REUSED = auto()
    RUN_NOT_RESUMABLE = auto()
    TOO_MANY_PENDING_WRITES = auto()
    TOO_MANY_STREAMS = auto()
    TOO_MANY_TAGS = auto()
    STORAGE_FULL = auto()  # on the disk
    STORAGE_BUSY = auto()
    STATE_LOST = auto()
    DEVICE_OUT_OF_MEMORY = auto()
    HISTORY_LOST = auto()
    NOT_OWNER = auto()
    BEHIND = auto()
    STALE = auto()
    OWNER_UNREACHABLE = auto()
    SHUTTING_DOWN = auto()
    DEVICE_LOST = auto()
    CALLER_CANCELLED = auto()
    DEADLINE_EXCEEDED = auto()
    TOKEN_MISSING = auto()
    TOKEN_INVALID = auto()
    ROLE_INSUFFICIENT = auto()
    INTERNAL = auto()


class Refusal(Exception):
    """A request that is not carried out, so that the model is unchanged.

    Args:
        text: for the caller: the problem, and how to correct the request.
        reason: the reason, if it is not the default of the class.
        metadata: the subject of the text, as names and values for programs.
    """

    reason: Reason

    def __init__(self, text: str, reason: Reason | None = None, **metadata: object) -> None:
        super().__init__(text)
        self.reason = reason or self.reason
        self.metadata = metadata


class InvalidArgument(Refusal):
    """A field whose value is invalid in every state of the model.

    Args:
        field: the field's name in the request.
        actual: the value that the request has, for example "got -1".
        expected: the valid values, for example "must be at least 0".
    """

    reason = Reason.INVALID_FIELD

    def __init__(self, field: str, actual: str, expected: str) -> None:
        self.field = field
        self.description = f"{actual}; {expected}"
        super().__init__(f"{field}: {self.description}")


class MalformedMessage(Refusal):
    """A message that cannot be decoded, or a call without one."""

    reason = Reason.MALFORMED_MESSAGE


class NotFound(Refusal):
    """A version of the model, or a run, that the server does not retain, or an unknown tag."""

    reason = Reason.NOT_FOUND


def version_not_retained(version: object, newest: int) -> NotFound:
    """Return the refusal for a version that the server does not retain.

    Args:
        version: the version in the request.
        newest: the newest committed version.
    """
    return NotFound(
        f"version: {version} is not retained; versions are decimal numbers, the model is at"
        f" {newest}, and ListVersions names the versions that are",
        Reason.VERSION_NOT_RETAINED,
        version=version,
        newest=newest,
    )


def tag_unknown(tag: str, field: str = "tag") -> NotFound:
    """Return the refusal for a tag that does not exist."""
    return NotFound(
        f"{field}: there is no tag {tag!r}; ListTags names the tags, and versions are decimal"
        " numbers",
        Reason.TAG_UNKNOWN,
        tag=tag,
    )


class AlreadyExists(Refusal):
    """A request_id that was used before, for another method or with other values."""

    reason = Reason.REQUEST_ID_REUSED


def request_id_reused(request_id: str | None) -> AlreadyExists:
    """Return the refusal of a request whose request_id belongs to another request."""
    return AlreadyExists(
        f"request_id: {request_id!r} was used before with another method or other values; nothing"
        " is applied",
        request_id=request_id,
    )


class Aborted(Refusal):
    """An interrupted run that cannot be resumed, since another write was committed after it."""

    reason = Reason.RUN_NOT_RESUMABLE


class Exhausted(Refusal):
    """A limit that is reached: waiting callers, tags, space for the state, the device's memory."""

    reason = Reason.TOO_MANY_PENDING_WRITES


class StorageBusy(Refusal):
    """A write that could not be stored, since another process locks the database."""

    reason = Reason.STORAGE_BUSY


class FailedPrecondition(Refusal):
    """A call that this server cannot answer in the state in which it is."""

    reason = Reason.NOT_OWNER


class Unavailable(Refusal):
    """A read that this server cannot answer now, but another one can, or this one later."""

    reason = Reason.BEHIND


class ShuttingDown(Refusal):
    """A server that accepts no more writes; a run in progress stops after a step.

    The server is stopping, or it has lost its device or its files and has to be restarted.
    """

    reason = Reason.SHUTTING_DOWN


def shutting_down_error() -> ShuttingDown:
    """Return the refusal of writes and runs while the server shuts down."""
    return ShuttingDown("the server is shutting down; what was committed is kept")


class Unauthenticated(Refusal):
    """A caller without a token, or with one that the server does not know."""

    reason = Reason.TOKEN_INVALID


class PermissionDenied(Refusal):
    """A caller whose role does not allow the call."""

    reason = Reason.ROLE_INSUFFICIENT


class CallerCancelled(Refusal):
    """A call whose caller no longer waits for the answer."""

    reason = Reason.CALLER_CANCELLED


def no_caller_error() -> CallerCancelled:
    """Return the error for a write or a run that has no waiting caller."""
    return CallerCancelled("nobody waited for it any more")


class DeadlineExceeded(Refusal):
    """A call whose deadline passed before it started, so that nothing was done."""

    reason = Reason.DEADLINE_EXCEEDED


class CannotStart(Exception):
    """An option with which the server cannot start; the text names it and how to correct it."""
