"""The command that starts a native front."""

from __future__ import annotations

import importlib.util

import click

from mnist37_client.cli.group import commands
from mnist37_client.processes import python_process


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def front(options: tuple[str, ...]) -> None:
    """Answer predictions natively, in front of a server; `mnist37 front --help` says how."""
    check_installed()
    # Another package: run it, do not import it.
    python_process.become("mnist37_front", *options)


def check_installed() -> None:
    """Raise ClickException unless the packages of the front are there."""
    if importlib.util.find_spec("pyvoy") is None or importlib.util.find_spec("numba") is None:
        raise click.ClickException(
            "the front needs more than the client: pip install 'mnist37[front]'"
        )
