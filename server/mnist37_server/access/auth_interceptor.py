"""The interceptor that checks a call's token and role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import grpc

from mnist37_server.access.roles import ALLOWED, FOLLOWS, OPEN, Role
from mnist37_server.access.tokens import Tokens
from mnist37_server.errors import PermissionDenied, Reason, Refusal, Unauthenticated
from mnist37_server.rpc.handlers import Continuation, Handler
from mnist37_server.rpc.status import refuse


def refusal_handler(refusal: Refusal) -> Handler:
    """Return a handler that refuses a call.

    The handler is a bidirectional stream for methods of every kind. A caller cannot see the
    difference. A unary handler would hold a thread until the call's message has arrived, and a
    caller without a token might never send it.
    """

    def refuse_call(requests: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:  # noqa: ARG001
        refuse(context, refusal)

    return grpc.stream_stream_rpc_method_handler(refuse_call)


TOKEN_MISSING = refusal_handler(
    Unauthenticated(
        "no token; send one in the metadata, as authorization: Bearer TOKEN", Reason.TOKEN_MISSING
    )
)
NOT_A_BEARER_TOKEN = refusal_handler(
    Unauthenticated("authorization: must be Bearer TOKEN", Reason.TOKEN_MISSING)
)
TOKEN_INVALID = refusal_handler(
    Unauthenticated("the token is unknown here; it may have been taken back")
)
ROLE_INSUFFICIENT = {
    (role, needed): refusal_handler(
        PermissionDenied(
            f"the token's role is {role.value}; this call needs {needed.value}",
            role=role.value,
            needs=needed.value,
        )
    )
    for role, needed in (
        (Role.PREDICT, Role.FOLLOW),
        (Role.PREDICT, Role.TRAIN),
        (Role.FOLLOW, Role.TRAIN),
    )
}


class AuthInterceptor(grpc.ServerInterceptor):
    """An interceptor that refuses calls without a valid token, before a message is read."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the service's handler, or one that refuses the call."""
        return self.authorize(handler_call_details) or continuation(handler_call_details)

    def authorize(self, call: grpc.HandlerCallDetails) -> Handler | None:
        """Return a handler that refuses the call, or None if the call is allowed."""
        authorization = None
        for name, value in call.invocation_metadata:
            if name == "authorization":
                authorization = value
        table = self._tokens.table
        role = table.roles_by_header.get(authorization)
        if role is None:
            if call.method.startswith(OPEN):
                return None
            if authorization is None:
                return TOKEN_MISSING
            scheme, _, token = str(authorization).partition(" ")
            if scheme.lower() != "bearer":
                return NOT_A_BEARER_TOKEN
            role = self._tokens.role_of(token)
            if role is None:
                return TOKEN_INVALID
            table.roles_by_header[authorization] = role
        allowed = ALLOWED.get(role)
        if allowed is None or call.method in allowed or call.method.startswith(OPEN):
            return None
        return ROLE_INSUFFICIENT[role, Role.FOLLOW if call.method in FOLLOWS else Role.TRAIN]
