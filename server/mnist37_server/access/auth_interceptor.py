"""Who may call what: two roles, a file of hashed tokens, and the gate that asks for one."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self, TypeAlias

import grpc

from mnist37_server.errors import CannotStart, PermissionDenied, Reason, Refused, Unauthenticated
from mnist37_server.rpc.status import refuse

LOOK_EVERY = 1.0  # seconds between two looks at the file of tokens

log = logging.getLogger(__name__)


class Role(Enum):
    """What a token is for; who may train may predict too."""

    PREDICT = "predict"
    TRAIN = "train"


# What the role predict may call. Whatever is not listed needs train: a method that is added later
# is closed until somebody opens it, and one that does not exist looks like one that does.
READS = frozenset(
    f"/{service}/{method}"
    for service, methods in {
        "mnist37.v1.Mnist37Service": (
            "Predict",
            "PredictStream",
            "GetLoss",
            "GetModel",
            "ListVersions",
            "ListRuns",
            "WatchRun",
        ),
        "inference.GRPCInferenceService": (
            "ServerLive",
            "ServerReady",
            "ModelReady",
            "ServerMetadata",
            "ModelMetadata",
            "ModelInfer",
        ),
    }.items()
    for method in methods
)

# Health and reflection: probes and tools have no token, and find nothing there that is secret.
OPEN = (
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], "Handler | None"]


class Known(NamedTuple):
    """What a file of tokens says."""

    roles: dict[bytes, Role]  # by the tokens' SHA-256
    # The same by what a call's metadata say, of those that came: to read and to hash each again
    # takes longer. A dict compares a stranger's only with one of the same hash, which Python keys
    # by chance.
    seen: dict[str | bytes | None, Role]

    @classmethod
    def of(cls, roles: dict[bytes, Role]) -> Self:
        """As it is when none has come."""
        return cls(roles, {})


class Tokens:
    """The tokens in a file, whose lines are `ROLE SHA256  # comment`.

    The file holds hashes, so that who reads it cannot call. SHA-256 alone is enough, and fast: a
    token is 256 random bits, which nobody finds by trying, as one would a password. Looking a hash
    up tells nothing by the time it takes, since nobody chooses what a token hashes to.

    Raises:
        CannotStart: the file cannot be read, or a line is not right.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = self._read()
        self.known = Known.of(self._parse(self._content))
        self._problem = ""

    def role(self, token: str) -> Role | None:
        """What the token is for; None for one that is not in the file."""
        return self.known.roles.get(hashlib.sha256(token.encode()).digest())

    def follow(self) -> None:
        """Takes in what the file becomes, as long as the process lives.

        In a thread of its own: a disk that hangs must not keep callers waiting.
        """

        def look_again_and_again() -> None:
            pause = threading.Event()
            while not pause.wait(LOOK_EVERY):
                self.refresh()

        threading.Thread(target=look_again_and_again, name="tokens", daemon=True).start()

    def refresh(self) -> None:
        """Looks whether the file has changed; one that is not right changes nothing.

        It is read whole, for it is small: its time and size could be the same after a change.
        """
        try:
            content = self._read()
            if content != self._content:
                self.known = Known.of(self._parse(content))
                self._content = content
                log.info("--tokens: changed, holds %s", self)
            self._problem = ""
        except CannotStart as error:
            if str(error) != self._problem:
                log.error("%s; the tokens from before still hold", error)
            self._problem = str(error)

    def __str__(self) -> str:
        """How many there are of each role."""
        count = Counter(self.known.roles.values())
        return ", ".join(f"{count[role]} for {role.value}" for role in Role)

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise CannotStart(f"--tokens: cannot read {self._path}: {error.strerror}") from error

    def _parse(self, content: bytes) -> dict[bytes, Role]:
        """The roles by their tokens' hashes. Its errors never repeat a line: it may be a token."""
        roles: dict[bytes, Role] = {}
        for number, line in enumerate(content.splitlines(), 1):
            entry = line.partition(b"#")[0].strip()
            if not entry:
                continue
            where = f"--tokens: {self._path}, line {number}"
            parts = re.fullmatch(rb"(predict|train)\s+([0-9a-fA-F]{64})", entry)
            if parts is None:
                raise CannotStart(
                    f"{where}: must be predict or train and the SHA-256 of a token, in hexadecimal;"
                    " `mnist37 token ROLE` makes one with its line"
                )
            digest = bytes.fromhex(parts[2].decode())
            if digest in roles:
                raise CannotStart(f"{where}: this token is in the file already; leave one of them")
            roles[digest] = Role(parts[1].decode())
        return roles


def refusing(refusal: Refused) -> Handler:
    """A handler that refuses.

    It is one of streams for methods of every kind, which a caller cannot tell: a handler of one
    message would hold a thread until that message is there, and a stranger need never send it.
    """

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:  # noqa: ARG001
        refuse(context, refusal)

    return grpc.stream_stream_rpc_method_handler(answer)


NO_TOKEN = refusing(
    Unauthenticated(
        "no token; send one in the metadata, as authorization: Bearer TOKEN", Reason.NO_TOKEN
    )
)
NO_BEARER = refusing(Unauthenticated("authorization: must be Bearer TOKEN", Reason.NO_TOKEN))
UNKNOWN = refusing(Unauthenticated("the token is unknown here; it may have been taken back"))
ONLY_PREDICT = refusing(
    PermissionDenied(
        "the token's role is predict; this call needs train", role="predict", needs="train"
    )
)


class Gate(grpc.ServerInterceptor):
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
        known = self._tokens.known
        role = known.seen.get(authorization)
        if role is None:
            if call.method.startswith(OPEN):
                return None
            if authorization is None:
                return NO_TOKEN
            scheme, _, token = str(authorization).partition(" ")
            if scheme.lower() != "bearer":
                return NO_BEARER
            role = self._tokens.role(token)
            if role is None:
                return UNKNOWN
            known.seen[authorization] = role
        if role is Role.PREDICT and call.method not in READS and not call.method.startswith(OPEN):
            return ONLY_PREDICT
        return None
