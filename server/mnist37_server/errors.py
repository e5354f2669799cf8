"""What the server refuses, and why. Nothing here knows of gRPC; mnist37_server.rpc.status does.

Refusal                   whatever is said to the caller, in its own words
├── InvalidArgument       a field's value is wrong, whatever the state
├── NotFound              a version or run that is not retained
├── AlreadyExists         a request_id that was used for something else
├── Aborted               a run cannot go on: another write came between
├── Exhausted             too many callers, or no room on the disk or on the device
├── ShuttingDown          the server takes no more writes: it is about to end, or ought to be
├── Unauthenticated       nobody knows who the caller is
├── PermissionDenied      the caller is known, and may not
├── CallerCancelled            the caller cancelled, or its deadline passed while it waited
└── DeadlineExceeded               the deadline passed before anything was done
CannotStart               an option that the server cannot start with
"""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """Why a request is refused, for programs.

    From release 0.1.0 on these names never change, whatever becomes of the texts.
    """

    INVALID_FIELD = auto()
    NOT_FOUND = auto()  # other than the two below
    VERSION_NOT_RETAINED = auto()
    RUN_NOT_RETAINED = auto()
    REQUEST_ID_REUSED = auto()
    RUN_NOT_RESUMABLE = auto()
    TOO_MANY_PENDING_WRITES = auto()
    TOO_MANY_STREAMS = auto()
    STORAGE_FULL = auto()  # on the disk
    DEVICE_OUT_OF_MEMORY = auto()
    SHUTTING_DOWN = auto()
    DEVICE_LOST = auto()
    CALLER_CANCELLED = auto()
    DEADLINE_EXCEEDED = auto()
    TOKEN_MISSING = auto()
    TOKEN_INVALID = auto()
    ROLE_INSUFFICIENT = auto()
    INTERNAL = auto()


class Refusal(Exception):
    """The request is not carried out and the model is as it was; the text is for the caller.

    Args:
        text: what is wrong and what would be right.
        reason: where it is not the usual one of its class.
        about: what the text speaks of, for programs.
    """

    reason: Reason

    def __init__(self, text: str, reason: Reason | None = None, **about: object) -> None:
        super().__init__(text)
        self.reason = reason or self.reason
        self.metadata = about


class InvalidArgument(Refusal):
    """A field holds what is never right: names the field, what came and what would be right."""

    reason = Reason.INVALID_FIELD

    def __init__(self, field: str, came: str, right: str) -> None:
        self.field = field
        self.description = f"{came}; {right}"
        super().__init__(f"{field}: {self.description}")


class NotFound(Refusal):
    """A version of the model, or a run, that is not retained."""

    reason = Reason.NOT_FOUND


def version_not_retained(version: object, newest: int) -> NotFound:
    """Return why a version cannot be had: the one refusal for it, whoever asks.

    Args:
        version: as it was asked for.
        newest: the newest committed version.
    """
    return NotFound(
        f"version: {version} is not retained; versions are decimal numbers, the model is at"
        f" {newest}, and ListVersions names the versions that are",
        Reason.VERSION_NOT_RETAINED,
        version=version,
        newest=newest,
    )


class AlreadyExists(Refusal):
    """A request_id that was used before, for another method or other values."""

    reason = Reason.REQUEST_ID_REUSED


class Aborted(Refusal):
    """A run that was interrupted cannot go on, since another write was committed after it."""

    reason = Reason.RUN_NOT_RESUMABLE


class Exhausted(Refusal):
    """Too many callers wait, or there is no room: to store the state, or on the device."""

    reason = Reason.TOO_MANY_PENDING_WRITES


class ShuttingDown(Refusal):
    """The server takes no more writes; those under way end at a step.

    It is about to end, or has lost its device and has to be started again.
    """

    reason = Reason.SHUTTING_DOWN


class Unauthenticated(Refusal):
    """The caller has no token, or one that is not known here."""

    reason = Reason.TOKEN_INVALID


class PermissionDenied(Refusal):
    """The caller's role does not allow this call."""

    reason = Reason.ROLE_INSUFFICIENT


class CallerCancelled(Refusal):
    """Nobody waits for the answer any more."""

    reason = Reason.CALLER_CANCELLED


class DeadlineExceeded(Refusal):
    """The deadline had passed when the call's turn came, so nothing was done for it."""

    reason = Reason.DEADLINE_EXCEEDED


class CannotStart(Exception):
    """An option asks for what cannot be had; the text names the option and what would be right."""
