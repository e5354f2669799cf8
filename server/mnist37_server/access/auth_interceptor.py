"""Who may call what: two roles, a file of hashed tokens, and the gate that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import grpc

from mnist37_server.access.roles import OPEN, READS, Role
from mnist37_server.access.tokens import Tokens
from mnist37_server.errors import PermissionDenied, Reason, Refusal, Unauthenticated
from mnist37_server.rpc.handlers import Continuation, Handler
from mnist37_server.rpc.status import refuse


def refusal_handler(refusal: Refusal) -> Handler:
    """A handler that refuses.

    It is one of streams for methods of every kind, which a caller cannot tell: a handler of one
    message would hold a thread until that message is there, and a stranger need never send it.
    """

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:  # noqa: ARG001
        refuse(context, refusal)

    return grpc.stream_stream_rpc_method_handler(answer)


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
ROLE_INSUFFICIENT = refusal_handler(
    PermissionDenied(
        "the token's role is predict; this call needs train", role="predict", needs="train"
    )
)


class AuthInterceptor(grpc.ServerInterceptor):
    """Lets a call pass whose token is of the right role, before anything of it is read."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """What answers the call: the service, or a refusal."""
        return self.refusal(handler_call_details) or continuation(handler_call_details)

    def refusal(self, call: grpc.HandlerCallDetails) -> Handler | None:
        """What answers a call that may not pass; None for one that may."""
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
            role = self._tokens.role(token)
            if role is None:
                return TOKEN_INVALID
            table.roles_by_header[authorization] = role
        if role is Role.PREDICT and call.method not in READS and not call.method.startswith(OPEN):
            return ROLE_INSUFFICIENT
        return None
