"""Secrets in files: tokens and passwords."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from mnist37_client.errors import InvalidInput
from mnist37_client.files.bounded_file import read_bounded

# This is in mnist37_server.access.secret_file too, which may not be imported here.
LIKE_A_SECRET = re.compile(r"[^/.\s]{16,}")  # in place of a path


def read_secret(option: str, file: str | Path) -> str:
    """Return the secret that a file holds, without the space around it.

    Args:
        option: that names the file; an error begins with it.
        file: in UTF-8 or, as Windows writes it, UTF-16 with its mark.

    Raises:
        InvalidInput: the file cannot be read, is no text, or is empty.
    """
    try:
        content = read_bounded(file)
    except OSError as error:
        if LIKE_A_SECRET.fullmatch(str(file)):  # which must not be printed
            raise InvalidInput(
                f"{option}: there is no such file; give the path of a file with the secret, and"
                " not the secret itself"
            ) from None
        raise InvalidInput(f"{option}: cannot read {file}: {error.strerror}") from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        secret = content.decode("utf-16" if is_utf16 else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{option}: {file} is not UTF-8; save it as UTF-8") from error
    if not secret:
        raise InvalidInput(f"{option}: {file} is empty; it must hold the secret")
    return secret
