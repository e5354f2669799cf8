"""The command that runs a server and its followers in Ray."""

from __future__ import annotations

import importlib.util

import click

from mnist37_client.cli.group import commands
from mnist37_client.processes import python_process


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def cluster(options: tuple[str, ...]) -> None:
    """Run a server and followers on several machines; `mnist37 cluster --help` says how."""
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("numba") is None:
        raise click.ClickException("a cluster needs Ray: pip install 'mnist37[ray]'")
    # Another package: run it, do not import it.
    python_process.become("mnist37_cluster", *options)
