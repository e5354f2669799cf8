"""A short fuzzing run: random bytes, and seeds with random changes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stress.fuzz_targets import TARGETS

# The replacements for a few bytes: numbers at the ends of their ranges, and random bytes.
PIECES = st.sampled_from([b"", b"\0", b"\x7f", b"\x80", b"\xff", b"\xff" * 9 + b"\1", b"\x80" * 5])
CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 4), PIECES | st.binary(max_size=4)), max_size=4
)


@pytest.mark.parametrize("name", TARGETS)
def test_the_targets_properties_hold(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(target.seeds) | st.binary(max_size=64), CHANGES)
    def check(content: bytes, changes: list[tuple[int, int, bytes]]) -> None:
        for position, length, piece in changes:
            index = position % (len(content) + 1)
            content = content[:index] + piece + content[index + length :]
        target.check(content)

    check()
