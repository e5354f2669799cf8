"""A file of hashed tokens, each with a role; the server reloads the file when it changes."""

from __future__ import annotations

import codecs
import hashlib
import logging
import re
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

from mnist37_server.access.roles import Role
from mnist37_server.access.secret_file import read_secret_file
from mnist37_server.errors import CannotStart

POLL_SECONDS = 1.0  # between two checks of the token file

log = logging.getLogger(__name__)


class TokenTable(NamedTuple):
    """The contents of a token file, and a cache of the headers that were looked up."""

    roles_by_hash: dict[bytes, Role]  # by the tokens' SHA-256
    # A cache by the whole authorization header, for valid tokens only: to parse and hash each
    # header again takes longer. A dict compares an unknown header only with keys of equal hash, and
    # Python's string hash has a random key, so the time of a look-up reveals no token.
    roles_by_header: dict[str | bytes | None, Role]

    @classmethod
    def from_roles(cls, roles: dict[bytes, Role]) -> Self:
        """Return a table with these roles and an empty cache."""
        return cls(roles, {})


class Tokens:
    """The tokens of a file whose lines are `ROLE SHA256  # comment`.

    The file contains hashes, so that a reader of the file cannot call the server. Plain SHA-256 is
    enough, and fast: a token is 256 random bits, so it cannot be guessed as a password can. The
    time of a look-up reveals nothing, since no caller can choose the hash of a token.

    Raises:
        CannotStart: the file cannot be read, or a line is invalid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = read_secret_file("--tokens", path)
        self.table = TokenTable.from_roles(parse(path, self._content))
        self._last_error = ""

    def role_of(self, token: str) -> Role | None:
        """Return the token's role, or None if the token is not in the file."""
        return self.table.roles_by_hash.get(hashlib.sha256(token.encode()).digest())

    def start_refreshing(self) -> None:
        """Start a thread that reloads the file when it changes, until the process ends.

        The thread does nothing else: a disk that hangs must not delay callers.
        """

        def refresh_forever() -> None:
            never = threading.Event()
            while not never.wait(POLL_SECONDS):
                self.refresh()

        threading.Thread(target=refresh_forever, name="tokens", daemon=True).start()

    def refresh(self) -> None:
        """Reload the file if it has changed, or keep the old tokens if it is invalid.

        The whole file is read, since it is small, and since its time and size could be unchanged
        after a change.
        """
        try:
            content = read_secret_file("--tokens", self._path)
            if content != self._content:
                self.table = TokenTable.from_roles(parse(self._path, content))
                self._content = content
                log.info("--tokens: changed, holds %s", self)
            self._last_error = ""
        except CannotStart as error:
            if str(error) != self._last_error:
                log.error("%s; the tokens from before still hold", error)
            self._last_error = str(error)

    def __str__(self) -> str:
        """Return how many tokens each role has."""
        counts = Counter(self.table.roles_by_hash.values())
        return ", ".join(f"{counts[role]} for {role.value}" for role in Role)


def parse(path: Path, content: bytes) -> dict[bytes, Role]:
    """Return the roles by token hash.

    Args:
        path: of the file, for errors, which never quote a line: it may be a token.
        content: of the file.

    Raises:
        CannotStart: a line is invalid.
    """
    roles: dict[bytes, Role] = {}
    for line_number, line in enumerate(re.split("\r\n?|\n", decode(path, content)), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        place = f"--tokens: {path}, line {line_number}"
        match = re.fullmatch(r"(predict|follow|train)\s+([0-9a-fA-F]{64})", entry)
        if match is None:
            raise CannotStart(
                f"{place}: must be predict, follow or train and the SHA-256 of a token, in"
                " hexadecimal; `mnist37 token ROLE` makes one with its line"
            )
        digest = bytes.fromhex(match[2])
        if digest in roles:
            raise CannotStart(f"{place}: this token is in the file already; leave one of them")
        roles[digest] = Role(match[1])
    return roles


def decode(path: Path, content: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with a byte order mark, as Windows has it.

    What is not UTF-8 may stand in a comment alone.

    Raises:
        CannotStart: it is UTF-16 without its mark.
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
    if "\0" in text[:2]:
        raise CannotStart(f"--tokens: {path} is no UTF-8; is it UTF-16? Save it as UTF-8")
    return text
