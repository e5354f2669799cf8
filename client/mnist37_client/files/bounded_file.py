"""Read a file that a caller names, which may be huge or endless, as /dev/zero is."""

from __future__ import annotations

import errno
from pathlib import Path

SETTINGS_BYTES_MAX = 2**20  # of a certificate, a key, a token or a model


def read_bounded(path: str | Path, bytes_max: int = SETTINGS_BYTES_MAX) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        bytes_max: the most bytes that it may have.

    Raises:
        OSError: the file cannot be read, or has more bytes.
    """
    with Path(path).open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"the file has more than {bytes_max:,} bytes", str(path))
    return content
