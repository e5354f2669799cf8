"""What the server refuses, and why. Nothing here knows of gRPC; mnist37_server.status does.

Refused                   whatever is said to the caller, in its own words
├── InvalidArgument       a field's value is wrong, whatever the state
├── NotFound              a version or run that is not kept
├── AlreadyExists         a request_id that was used for something else
├── Aborted               a run cannot go on: another write came between
├── Exhausted             too many callers, or no room to store the state
├── ShuttingDown          the server is about to end
└── CallerLeft            the caller cancelled, or its deadline passed
CannotStart               an option that the server cannot start with
"""

from __future__ import annotations


class Refused(Exception):
    """The request is not carried out and the model is as it was; the text is for the caller."""


class InvalidArgument(Refused):
    """A field holds what is never right: names the field, what came and what would be right."""

    def __init__(self, field: str, came: str, right: str) -> None:
        super().__init__(f"{field}: {came}; {right}")
        self.field = field


class NotFound(Refused):
    """A version of the model, or a run, that is not kept."""


class AlreadyExists(Refused):
    """A request_id that was used before, for another method or other values."""


class Aborted(Refused):
    """A run that was cut off cannot go on, since another write was committed after it."""


class Exhausted(Refused):
    """Too many callers wait, or there is no room to store the state."""


class ShuttingDown(Refused):
    """The server takes no more writes; those under way end at the next step."""


class CallerLeft(Refused):
    """Nobody waits for the answer any more."""


class CannotStart(Exception):
    """An option asks for what cannot be had; the text names the option and what would be right."""
