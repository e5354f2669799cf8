"""The errors of web itself. The client's errors are those of the server."""

from __future__ import annotations

import re

from mnist37_client.errors import Mnist37Error

SOCKET_FILE = re.compile(r"unix:[^\s:;,]+")  # the server's address, in a text of the client


class CannotStart(Exception):
    """A setting with which web cannot start; the message is one line for the operator."""


class HttpError(Exception):
    """A request that web itself refuses.

    Args:
        status: of HTTP.
        text: says what was wrong, and what would be right.
        reason: a name for programs.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self, status: int, text: str, reason: str, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


def bad_request(text: str) -> HttpError:
    """Return the error for a request that is never valid."""
    return HttpError(400, text, "INVALID_REQUEST")


def for_callers(error: Mnist37Error) -> str:
    """Return the text of an error without the path of a socket file: callers have no use for it."""
    return SOCKET_FILE.sub("unix:...", str(error))
