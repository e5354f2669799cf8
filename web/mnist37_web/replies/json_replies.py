"""Replies in JSON: results, and one form of error for all failures."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping

import grpc
import orjson
from mnist37_client import errors
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mnist37_web.errors import HttpError, for_callers

log = logging.getLogger(__name__)

# For each exception of the client: the status of HTTP, as Google's APIs map the codes of gRPC, and
# the code.
STATUSES: dict[type[errors.Mnist37Error], tuple[int, grpc.StatusCode]] = {
    errors.InvalidInput: (400, grpc.StatusCode.INVALID_ARGUMENT),
    errors.FailedPrecondition: (400, grpc.StatusCode.FAILED_PRECONDITION),
    errors.Unauthenticated: (401, grpc.StatusCode.UNAUTHENTICATED),
    errors.PermissionDenied: (403, grpc.StatusCode.PERMISSION_DENIED),
    errors.NotFound: (404, grpc.StatusCode.NOT_FOUND),
    errors.AlreadyExists: (409, grpc.StatusCode.ALREADY_EXISTS),
    errors.Aborted: (409, grpc.StatusCode.ABORTED),
    errors.Exhausted: (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    errors.Cancelled: (503, grpc.StatusCode.CANCELLED),
    errors.Unavailable: (503, grpc.StatusCode.UNAVAILABLE),
    errors.DeadlineExceeded: (504, grpc.StatusCode.DEADLINE_EXCEEDED),
    errors.InvalidResponse: (502, grpc.StatusCode.INTERNAL),
    errors.ServerError: (500, grpc.StatusCode.INTERNAL),
}
# Of HTTP, for the errors that Starlette's router raises.
REASONS = {404: "NO_SUCH_ROUTE", 405: "METHOD_NOT_ALLOWED"}
RETRY_SECONDS = 1  # if the server is away, and nothing names a delay


class JsonReply(Response):
    """A value as JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return the value's JSON."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


def error_reply(error: Exception) -> JsonReply:
    """Return the reply to a request that failed: its text in `error`, as Triton has it.

    The other fields are for programs: `code` of gRPC, `reason`, `field`.
    """
    status, body = describe_error(error)
    headers = {}
    delay: float | None = getattr(error, "retry_after", None)
    if delay is None and status == 503:
        delay = RETRY_SECONDS
    # A 429 without a delay does not end by itself: the disk is full, or there are 100 tags.
    if delay is not None and status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(delay)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 408:
        headers["Connection"] = "close"  # the rest of the body is not read
    return JsonReply(body, status, headers)


def describe_error(error: Exception) -> tuple[int, Mapping[str, object]]:
    """Return the status of HTTP and the JSON for a failure."""
    if isinstance(error, HttpError):
        return error.status, {"error": str(error), "reason": error.reason}
    if not isinstance(error, errors.Mnist37Error):
        number = secrets.token_hex(4)
        log.error("internal error %s", number, exc_info=error)
        text = f"internal error {number}; the log has the same number, and says what happened"
        return 500, {"error": text, "code": "INTERNAL", "reason": "INTERNAL_ERROR"}
    status, code = next(
        (pair for kind, pair in STATUSES.items() if isinstance(error, kind)),
        (500, grpc.StatusCode.INTERNAL),
    )
    if error.reason == "MESSAGE_TOO_LARGE":
        status = 413
    body: dict[str, object] = {"error": for_callers(error), "code": code.name}
    if error.reason is not None:
        body["reason"] = error.reason
    if isinstance(error, errors.InvalidInput) and error.field is not None:
        body["field"] = error.field
    return status, body


async def reply_to_failure(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Reply to a request that raised an exception: a handler for Starlette."""
    return error_reply(error)


async def reply_to_routing(request: Request, error: Exception) -> Response:
    """Reply to a request that the router refuses: a handler for Starlette."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path[:200]!r}: {error.detail.lower()}"
    if allowed := (error.headers or {}).get("Allow"):
        text += f"; must be {allowed}"
    reason = REASONS.get(error.status_code, "INVALID_REQUEST")
    reply = error_reply(HttpError(error.status_code, text, reason))
    reply.headers.update(error.headers or {})
    return reply
