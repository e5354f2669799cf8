"""The command line `mnist37`.

Exit status:
    0: done.
    1: a fault of the server, or a cancelled call.
    2: a value or a file that is not valid.
    3: no answer: no server at the address, or it is shutting down, full or too slow; try again
        later.
    4: the state does not allow it: a request_id of another request, a run that cannot continue, a
        version that is not retained.
    5: no access: the token is missing, unknown or insufficient, or the client does not trust the
        server's certificate.
    130: Ctrl-C.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import sys

import click

from mnist37_client.cli import model, training
from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    connection_options,
    json_option,
    print_json,
)

COMMANDS = (model, training)  # the import of these modules adds their commands to the group


@commands.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, options_metavar=""
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Start a server; `mnist37 serve --help` lists its options."""
    # The server is another package, with a compiler: run it, do not import it.
    os.execv(sys.executable, [sys.executable, "-m", "mnist37_server", *options])


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
@click.argument("role", type=click.Choice(["predict", "train"]))
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
def demo() -> None:
    """Show the whole service in a minute.

    The command starts a server, trains 20 epochs and recognises digits.
    """
    from rich.console import Console

    from mnist37_client.cli import demo as demo_module

    demo_module.run(Console())


def main() -> None:
    """Run a command; print an error as one line on stderr and exit with the status of its kind."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `mnist37 ... | head` ends silently
    try:
        commands(prog_name="mnist37", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"mnist37: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        from mnist37_client.errors import Mnist37Error

        if not isinstance(error, Mnist37Error):
            raise
        click.echo(f"mnist37: {error}", err=True)
        sys.exit(_exit_status(error))


def _exit_status(error: Exception) -> int:
    from mnist37_client import errors

    if isinstance(error, errors.InvalidInput):
        return 2
    if isinstance(error, errors.Unavailable | errors.DeadlineExceeded | errors.Exhausted):
        return 3
    if isinstance(error, errors.AlreadyExists | errors.Aborted | errors.NotFound):
        return 4
    if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
        return 5
    return 1
