"""Tests of what the system refuses a server that starts."""

from __future__ import annotations

import errno

import pytest
from mnist37_server.command_line import refused_by_system


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "too many"), f"[Errno {errno.EMFILE}] too many"),
        (OSError("no library\nand a long story"), "no library"),
        (MemoryError(), "no memory is left"),
        (RuntimeError("can't start new thread"), "it lets this user start no thread more"),
        (ImportError("x.so: failed to map segment"), "x.so: failed to map segment"),
        (ImportError("no module"), None),
        (RuntimeError("else"), None),
    ],
    ids=repr,
)
def test_a_refusal_of_the_system_is_no_fault_of_the_server(
    error: Exception, text: str | None
) -> None:
    assert refused_by_system(error) == text
