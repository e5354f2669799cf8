"""A file of hashed tokens, each with a role; it is read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

from mnist37_server.access.roles import Role
from mnist37_server.errors import CannotStart

POLL_SECONDS = 1.0  # seconds between two looks at the file of tokens

log = logging.getLogger(__name__)


class TokenTable(NamedTuple):
    """What a file of tokens says."""

    roles_by_hash: dict[bytes, Role]  # by the tokens' SHA-256
    # The same by what a call's metadata say, of those that came: to read and to hash each again
    # takes longer. A dict compares a stranger's only with one of the same hash, which Python keys
    # by chance.
    roles_by_header: dict[str | bytes | None, Role]

    @classmethod
    def from_roles(cls, roles: dict[bytes, Role]) -> Self:
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
        self.table = TokenTable.from_roles(self._parse(self._content))
        self._problem = ""

    def role(self, token: str) -> Role | None:
        """What the token is for; None for one that is not in the file."""
        return self.table.roles_by_hash.get(hashlib.sha256(token.encode()).digest())

    def follow(self) -> None:
        """Takes in what the file becomes, as long as the process lives.

        In a thread of its own: a disk that hangs must not keep callers waiting.
        """

        def look_again_and_again() -> None:
            pause = threading.Event()
            while not pause.wait(POLL_SECONDS):
                self.refresh()

        threading.Thread(target=look_again_and_again, name="tokens", daemon=True).start()

    def refresh(self) -> None:
        """Looks whether the file has changed; one that is not right changes nothing.

        It is read whole, for it is small: its time and size could be the same after a change.
        """
        try:
            content = self._read()
            if content != self._content:
                self.table = TokenTable.from_roles(self._parse(content))
                self._content = content
                log.info("--tokens: changed, holds %s", self)
            self._problem = ""
        except CannotStart as error:
            if str(error) != self._problem:
                log.error("%s; the tokens from before still hold", error)
            self._problem = str(error)

    def __str__(self) -> str:
        """How many there are of each role."""
        count = Counter(self.table.roles_by_hash.values())
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
