"""The README's table of flags against the code: all are in it, with what the code says of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import mnist37_client.cli.main  # noqa: F401 - its commands join the group
import pytest
from mnist37_client.cli.group import commands
from mnist37_server.__main__ import main

README = Path(__file__).parents[2] / "README.md"
OTHERS = " (other commands)"


class Row(NamedTuple):
    """A line of the table; or an option in the same words."""

    flag: str
    environment: str
    default: str


def table() -> list[Row]:
    lines = README.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| flag | environment |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        flag, environment, default, _ = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(Row(flag.replace("`", ""), environment, default))
    return rows


def options(command: click.Command) -> dict[str, click.Option]:
    found = [option for option in command.params if isinstance(option, click.Option)]
    return {option.opts[0]: option for option in found}


def shared() -> dict[str, click.Option]:
    """The options that all commands have that talk to a server."""
    loss = options(commands.commands["loss"])
    return {flag: option for flag, option in loss.items() if option.envvar}


def check_default(option: click.Option, cell: str) -> None:
    """A default that is no value, but what is made of none, is told in words."""
    context = click.Context(click.Command("any"))
    default = option.get_default(context)
    if option.is_flag:
        assert cell == ("on" if default else "off")
    elif isinstance(default, str | int | float):
        assert cell == (f"{default:g}" if isinstance(default, float) else str(default))
    else:
        assert len(cell) > 3


def test_it_lists_each_option_once_and_no_other() -> None:
    flags = [row.flag for row in table()]
    assert sorted(flags) == sorted([*options(main), *(flag + OTHERS for flag in shared())])


@pytest.mark.parametrize("row", table(), ids=lambda row: row.flag)
def test_it_tells_what_the_code_does(row: Row) -> None:
    if row.flag.endswith(OTHERS):
        option = shared()[row.flag.removesuffix(OTHERS)]
        assert row.environment == option.envvar
    else:
        option = options(main)[row.flag]
        assert main.context_settings["auto_envvar_prefix"] == "MNIST37"
        assert row.environment == f"MNIST37_{option.name.upper()}"
    check_default(option, row.default)
