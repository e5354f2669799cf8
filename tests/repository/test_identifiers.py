"""Tests that identifiers that were renamed before release 0.1.0 do not come back."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import ROOT

# Classes, constants and functions. A stored name may still be an old one, but only as a string.
OLD = set(
    re.findall(
        r"\w+",
        """
    Activity Attempts CallerLeft Ended Ending Events FewThreads Figures Gate Impossible Journal
    Known ManyThreads Merger Patience Question Refused Room RunPlace Sets Told TooLate Trained
    Unusable Watchable Writing Written

    ANSWER_TO_PING A_FEW A_ROW FIRST_PAUSE FORGET_EVERY FORGOTTEN_AT_ONCE HELD_UP IMAGES_AT_A_TIME
    IMAGES_A_MESSAGE KEPT_EPOCHS KEPT_REQUESTS KEPT_RUNS KEPT_SECONDS KEPT_VERSIONS LEAST_CONTRAST
    LEAST_PING_INTERVAL LONGEST_PAUSE LOOK_EVERY MAX_CALLERS MAX_REST MAX_TOGETHER MAX_UNREAD
    MOST_AT_ONCE MOST_FIELDS MOST_INK MOST_PIXELS MOST_ROWS NOT_FOR_IT NO_BEARER ONLY_PREDICT
    SECONDS_AT_A_TIME SHORT_CALLS SPARE_RPCS STEPS_AT_A_TIME STEPS_A_LAUNCH UNDER_WAY
    VALUES_AT_A_TIME

    a_callers_fault adopt answer_to at_once check_wanted count_of device_full end_if_all_left
    eventually grey_on hashed_as held_to images_of in_one_go in_turn kept_version lacking median_of
    no_room nobody_waits open_gate or_new place_on run_began run_on survived the_input to_progress
    to_values too_late try_out when_lost where_there_is_one _gathered _merger _told
""",
    )
)
HISTORY = ("CHANGELOG.md", "docs/decisions/")  # may use old names
CODE_SPAN = re.compile(r"`([^`\n]+)`")


def files(suffix: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"*{suffix}"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    return [
        ROOT / name
        for name in listed.stdout.split()
        if not name.startswith(HISTORY)
        and (ROOT / name).is_file()
        and ROOT / name != Path(__file__)
    ]


def in_code_spans(text: str) -> Iterator[str]:
    """Yield the identifiers that a text has between backticks."""
    for span in CODE_SPAN.findall(text):
        yield from re.findall(r"\w+", span)


def identifiers(source: str) -> Iterator[str]:
    """Yield the names in a module's code, and those between backticks in its texts."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.string
        elif token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from in_code_spans(token.string)


def test_old_identifiers_are_gone() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for suffix, names in ((".py", identifiers), (".md", in_code_spans))
        for path in files(suffix)
        for name in names(path.read_text())
        if name in OLD
    }
    assert not found


def test_names_in_code_and_in_code_spans_are_seen_and_prose_is_not() -> None:
    source = """
    # A Gate in prose, and `Room.come` in a code span.
    text = "Gate"
    x = Gate(or_new)
    """
    assert OLD.intersection(identifiers(source.replace("    ", ""))) == {"Gate", "Room", "or_new"}
