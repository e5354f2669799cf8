"""A moment of fuzzing: seeds that are changed here and there, and bytes out of nowhere."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stress.fuzz_targets import TARGETS

# What is put in the place of a few bytes: numbers at the ends of their ranges, and anything.
PIECES = st.sampled_from([b"", b"\0", b"\x7f", b"\x80", b"\xff", b"\xff" * 9 + b"\1", b"\x80" * 5])
CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 4), PIECES | st.binary(max_size=4)), max_size=4
)


@pytest.mark.parametrize("name", TARGETS)
def test_what_has_to_hold_of_any_bytes_holds(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(target.seeds) | st.binary(max_size=64), CHANGES)
    def check(content: bytes, changes: list[tuple[int, int, bytes]]) -> None:
        for where, length, piece in changes:
            place = where % (len(content) + 1)
            content = content[:place] + piece + content[place + length :]
        target.check(content)

    check()
