"""Files that are written whole, or not at all."""

from __future__ import annotations

from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet; if that fails, leave none behind.

    Raises:
        FileExistsError: the file is there.
        OSError: it cannot be written.
    """
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:  # Ctrl-C too
            path.unlink(missing_ok=True)
            raise
