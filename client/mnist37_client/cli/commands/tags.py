"""The commands for tags: names for versions, which the server retains as long as they exist."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    VERSION_OR_TAG,
    client_options,
    json_option,
    print_json,
    print_version,
    request_id_option,
)

if TYPE_CHECKING:
    from mnist37_client.client import Client


@commands.command()
@click.argument("name")
@click.argument("version", type=VERSION_OR_TAG, required=False)
@request_id_option
@json_option
@client_options
def tag(
    client: Client, name: str, version: int | str | None, request_id: str | None, as_json: bool
) -> None:
    """Point the tag NAME to VERSION, by default to the newest.

    The server retains the version as long as the tag points to it. VERSION may be another tag:
    `mnist37 tag production best@7`.
    """
    print_version(client.tag_version(name, version, request_id=request_id), as_json)


@commands.command()
@json_option
@client_options
def tags(client: Client, as_json: bool) -> None:
    """List the tags, and those of the best version of each run: best@RUN."""
    from mnist37_client.cli.terminal import format_time

    for found in client.tags():
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            origin = f"  run {found.run}" if found.run else ""
            time = format_time(found.tagged_at)
            click.echo(f"{found.version:>10}  {time}  {found.name}{origin}")


@commands.command()
@click.argument("name")
@request_id_option
@json_option
@client_options
def untag(client: Client, name: str, request_id: str | None, as_json: bool) -> None:
    """Delete the tag NAME."""
    print_version(client.delete_tag(name, request_id=request_id), as_json)
