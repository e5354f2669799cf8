"""The command `mnist37 front`: its options become the settings of a front."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from mnist37_server.command_line import refused_by_system
from mnist37_server.command_line.command import Command, check_compiler
from mnist37_server.errors import CannotStart

from mnist37_front.owner import OwnerRefused
from mnist37_front.settings import FrontSettings, Pair

FILE = click.Path(path_type=Path, dir_okay=False)
DEFAULT = FrontSettings()


@click.command(
    cls=Command,
    context_settings={
        "show_default": True,
        "auto_envvar_prefix": "MNIST37_FRONT",
        "help_option_names": ["-h", "--help"],
    },
)
@click.option(
    "--owner",
    default=DEFAULT.owner,
    metavar="HOST:PORT",
    help="The server that owns the model, which gets all calls but predictions.",
)
@click.option(
    "--address",
    default=DEFAULT.address,
    metavar="HOST:PORT",
    help="Where to listen; port 0 picks a free one.",
)
@click.option(
    "--owner-tls-ca",
    type=FILE,
    help="The authority, in PEM, that signed the owner's certificate; turns TLS to it on.",
)
@click.option("--owner-tls-cert", type=FILE, help="The front's certificate, for the owner.")
@click.option("--owner-tls-key", type=FILE, help="Its private key, in PEM.")
@click.option(
    "--owner-tls-server-name",
    metavar="NAME",
    help="The name in the owner's certificate, if it differs from the name in its address.",
)
@click.option(
    "--owner-token-file",
    type=FILE,
    help="The file with the front's token, whose role at the owner is follow.",
)
@click.option("--tls-cert", type=FILE, help="The front's certificate, in PEM; turns TLS on.")
@click.option("--tls-key", type=FILE, help="Its private key, in PEM.")
@click.option(
    "--client-ca",
    type=FILE,
    help="Accept only callers with a certificate that this authority, in PEM, has signed.",
)
@click.option("--tokens", type=FILE, help="The owner's file of tokens, for predictions.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine even without TLS, or without a check of callers.",
)
@click.option(
    "--max-message-mib",
    type=click.IntRange(1, 1024),
    default=DEFAULT.max_message_mib,
    metavar="MIB",
    help="How large a message of a prediction may be.",
)
@click.option(
    "--message-timeout",
    type=float,
    default=DEFAULT.message_timeout,
    metavar="SECONDS",
    help="How long a caller may take to send the message of a prediction.",
)
@click.option(
    "--keepalive",
    type=float,
    default=DEFAULT.keepalive,
    metavar="SECONDS",
    help="How often a caller by HTTP/2 is sent a ping.",
)
@click.option(
    "--max-connection-age",
    type=float,
    metavar="SECONDS",
    help="How old a connection may become; its client then opens another one, perhaps to another"
    " front.  [default: any age]",
)
@click.option(
    "--max-age",
    type=float,
    metavar="SECONDS",
    help="Refuse predictions once the front has not been up to date for this long."
    "  [default: never]",
)
@click.option(
    "--metrics-address",
    metavar="HOST:PORT",
    help="Where Prometheus may ask for metrics; port 0 picks a free one.  [default: nowhere]",
)
@click.option(
    "--shutdown-grace",
    type=float,
    default=DEFAULT.shutdown_grace,
    metavar="SECONDS",
    help="How long calls under way may go on at the end.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=DEFAULT.workers,
    metavar="N",
    help="How many threads of Envoy serve connections.",
)
@click.option(
    "--http/--no-http",
    default=DEFAULT.http,
    help="Show the page and serve the HTTP API on the same address.",
)
@click.option(
    "--page-token-file", type=FILE, help="The file with the token by which the page acts."
)
@click.option(
    "--password-file", type=FILE, help="Ask every request of HTTP for the password in this file."
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="HOST[:PORT]",
    help="A further name under which browsers reach the front; may be given several times.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default=DEFAULT.log_format,
    help="Lines for a terminal, or one JSON object a line for a collector; on stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=DEFAULT.log_level,
    help="The lowest level that is logged.",
)
def front(**settings: Any) -> FrontSettings:  # noqa: ANN401 - the fields of FrontSettings
    """Answer predictions natively, in front of the server that owns the model.

    Envoy listens in the server's place. It answers predictions by gRPC from a copy of the model,
    and passes all other calls on.
    """
    return FrontSettings(**settings)


def start(command: click.Command, name: str) -> NoReturn:
    """Run a command and end the process; print one line on stderr if the front cannot start.

    Args:
        command: returns the settings of the front, and perhaps the server to start before it.
        name: of the command, for its texts.
    """
    try:
        result = command(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        if isinstance(result, FrontSettings | Pair):
            end(serve(result))
    except click.ClickException as error:
        fail(name, error.format_message(), error.exit_code)
    except CannotStart as error:
        fail(name, str(error), 2)
    except OwnerRefused as error:
        end(error.status)
    except OSError as error:
        fail(name, f"the output cannot be written: {error.strerror}", 1)
    end(0)


def serve(settings: FrontSettings | Pair) -> int:
    """Serve until a signal ends the front; return the exit status.

    Raises:
        CannotStart: a setting cannot be used, or the system lacks what the front needs.
        OwnerRefused: the server did not start, and has said why.
    """
    check_compiler()
    from mnist37_front.running import run

    try:
        return run(settings) if isinstance(settings, FrontSettings) else run(*settings)
    except Exception as error:
        if (what := refused_by_system(error)) is None:
            raise
        raise CannotStart(f"the system refuses what the front needs: {what}") from error


def fail(name: str, text: str, status: int) -> NoReturn:
    """Print why the front cannot start, if stderr takes it, and end the process."""
    logging.shutdown()  # first what was logged
    with suppress(OSError):
        click.echo(f"{name}: {text}", err=True)
    end(status)


def end(status: int) -> NoReturn:
    """End the process; it does not matter whether stdout takes what was not written yet."""
    logging.shutdown()
    os._exit(status)
