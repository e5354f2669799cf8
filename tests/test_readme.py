"""What the README says of the server's options is what the server has."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from mnist37_server.__main__ import main

README = (Path(__file__).parents[1] / "README.md").read_text()
ROWS = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*) \|$", README, re.MULTILINE))
OPTIONS = {option.opts[0]: option for option in main.params if isinstance(option, click.Option)}


def test_every_option_of_the_server_has_a_row() -> None:
    assert list(ROWS) == list(OPTIONS)


@pytest.mark.parametrize("flag", ROWS)
def test_a_row_names_the_environment_variable_and_the_default(flag: str) -> None:
    variable, default, _ = ROWS[flag].split(" | ", 2)
    assert variable == "MNIST37" + flag.removeprefix("-").replace("-", "_").upper()
    option = OPTIONS[flag]
    if isinstance(option.default, int | float) and not option.is_flag:
        assert float(default) == option.default
    elif isinstance(option.default, str):
        assert default == option.default
