"""The command that lists the followers of a server."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import client_options, json_option, print_json

if TYPE_CHECKING:
    from mnist37_client.client import Client


@commands.command()
@json_option
@client_options
def followers(client: Client, as_json: bool) -> None:
    """List the followers that the server sends its versions to.

    Of each: the version that was sent last, for how many seconds it has not been the newest, when
    the follower connected, its name and its address.
    """
    from mnist37_client.cli.terminal import format_time

    for found in client.followers():
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            name, address = found.id or "(no name)", found.address or "(no address)"
            time = format_time(found.connected_at)
            click.echo(f"{found.version:>10}  {found.age:>6.1f} s  {time}  {name}  {address}")
