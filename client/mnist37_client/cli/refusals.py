"""The lines for what the system refuses a command: output, files, memory, threads, processes."""

from __future__ import annotations

import errno
import os

# Errors that a write to stdout does not have, whatever it goes to.
NOT_OF_OUTPUT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
NO_THREAD = "can't start new thread"


def explain(error: Exception) -> str | None:
    """Return what the system refuses; None if the error is a fault of the program.

    A write to stdout is the one thing whose error names no file.
    """
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        if error.filename is not None:
            return f"{os.fsdecode(str(error.filename))}: {reason}"
        is_start = error.errno == errno.EAGAIN and not hasattr(error, "characters_written")
        if error.errno not in NOT_OF_OUTPUT and not is_start:
            return f"the output cannot be written: {reason}"
    elif isinstance(error, MemoryError):
        reason = "no memory is left"
    elif isinstance(error, RuntimeError) and NO_THREAD in str(error):
        reason = "it lets this user start no thread more"
    else:
        return None
    return f"the system refuses what the command needs: {reason}"
