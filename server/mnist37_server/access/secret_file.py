"""Read a file of secrets without printing what may be a secret itself."""

from __future__ import annotations

import re
from pathlib import Path

from mnist37_server.errors import CannotStart

# This is in mnist37_client.files.secret_file too, which may not be imported here.
LIKE_A_SECRET = re.compile(r"[^/.\s]{16,}")  # in place of a path


def read_secret_file(option: str, path: Path) -> bytes:
    """Return the content of a file of secrets.

    Args:
        option: that names the file; an error begins with it.
        path: of the file. Somebody may have given the secret in its place.

    Raises:
        CannotStart: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        if LIKE_A_SECRET.fullmatch(str(path)):
            raise CannotStart(
                f"{option}: there is no such file; give the path of a file with the secret, and"
                " not the secret itself"
            ) from None
        raise CannotStart(f"{option}: cannot read {path}: {error.strerror}") from error
