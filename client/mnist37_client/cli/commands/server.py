"""The commands that start a server, check it, or make a token for it."""

from __future__ import annotations

import hashlib
import secrets
import signal
import sys

import click

from mnist37_client.cli.commands.front import check_installed as check_front_installed
from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    connection_options,
    json_option,
    print_json,
)
from mnist37_client.processes import python_process

FRONT = "--front"


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Start a server; `mnist37 serve --help` lists its options.

    With --front, start a native front before it too.
    """
    # The server is another package, with a compiler: run it, do not import it.
    if FRONT not in options:
        python_process.become("mnist37_server", *options)
    check_front_installed()
    rest = [option for option in options if option != FRONT]
    python_process.become("mnist37_front", "serve", *rest)


@commands.command()
@connection_options
def health(
    address: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_server_name: str | None,
) -> None:
    """Check once whether the server is serving.

    The exit status is 0 if it is, and 3 if not. The command prints the device that the model is on.
    """
    from mnist37_client.health import check

    device = check(
        address,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_server_name=tls_server_name,
    )
    click.echo("serving" if device is None else f"serving, the model is on {device}")


@commands.command()
@click.argument("role", type=click.Choice(["predict", "follow", "train"]))
@click.option(
    "--name",
    default="",
    metavar="NAME",
    help="Add this comment to the line, for example the caller's name.",
)
@json_option
def token(role: str, name: str, as_json: bool) -> None:
    """Make a token for ROLE and its line for the server's file.

    The file is the one that `mnist37 serve --tokens` reads. The line has only the token's hash, so
    a reader of the file cannot use the token. The command prints the token once and does not store
    it.
    """
    secret = secrets.token_urlsafe(32)
    comment = " ".join(["", *name.split()])
    line = f"{role} {hashlib.sha256(secret.encode()).hexdigest()}" + (comment and f"  #{comment}")
    if as_json:
        print_json(token=secret, line=line)
    else:
        click.echo(f"token, for the caller:      {secret}")
        click.echo(f"line, for the server's file: {line}")


@commands.command()
@click.option(
    "--web", "shows_page", is_flag=True, help="Start a server and its page, and print the address."
)
def demo(shows_page: bool) -> None:
    """Show the whole service in a minute.

    The command starts a server, trains 20 epochs and recognises digits.
    """
    from rich.console import Console

    from mnist37_client.cli import demo as demo_module
    from mnist37_client.cli.commands.web import check_installed

    if shows_page:
        check_installed()

    # Until the server listens; without it, one that starts would be left behind.
    for number in demo_module.END_SIGNALS:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    demo_module.run_page(Console()) if shows_page else demo_module.run(Console())
