"""The command that starts the page and its HTTP API."""

from __future__ import annotations

import importlib.util

import click

from mnist37_client.cli.group import commands
from mnist37_client.processes import python_process


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def web(options: tuple[str, ...]) -> None:
    """Show a page on which the model learns; `mnist37 web --help` lists its options."""
    # Another package, with dependencies of its own: run it, do not import it.
    check_installed()
    python_process.become("mnist37_web", *options)


def check_installed() -> None:
    """Raise ClickException unless the packages of the page are there."""
    if importlib.util.find_spec("starlette") is None:
        raise click.ClickException(
            "the page needs more than the client: pip install 'mnist37[web]'"
        )
