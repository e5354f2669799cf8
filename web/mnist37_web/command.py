"""The command `mnist37 web`: its options become the settings of web."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from mnist37_client import errors
from mnist37_client.cli import streams
from mnist37_client.cli.group import Command
from mnist37_client.cli.options import read_token, tls_options, token_options
from mnist37_client.files.secret_file import read_secret

from mnist37_web.errors import CannotStart
from mnist37_web.settings import Settings, Upstream

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    cls=Command, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@click.option(
    "--address",
    default="127.0.0.1:8037",
    envvar="MNIST37_WEB_ADDRESS",
    show_envvar=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 picks a free one.",
)
@click.option(
    "--server",
    default="127.0.0.1:50051",
    envvar="MNIST37_ADDRESS",
    show_envvar=True,
    metavar="HOST:PORT",
    help="The model server to call.",
)
@tls_options
@token_options
@click.option(
    "--https-cert",
    type=FILE,
    envvar="MNIST37_WEB_HTTPS_CERT",
    show_envvar=True,
    help="The certificate of the page, in PEM; turns HTTPS on.",
)
@click.option(
    "--https-key",
    type=FILE,
    envvar="MNIST37_WEB_HTTPS_KEY",
    show_envvar=True,
    help="Its private key, in PEM.",
)
@click.option(
    "--password-file",
    type=FILE,
    envvar="MNIST37_WEB_PASSWORD_FILE",
    show_envvar=True,
    help="Ask every request for the password in this file.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    envvar="MNIST37_WEB_HOST_NAMES",
    show_envvar=True,
    metavar="HOST[:PORT]",
    help="A further name under which browsers reach the page, for example a proxy's; may be given"
    " several times.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="MNIST37_WEB_INSECURE",
    show_envvar=True,
    help="Listen beyond this machine without HTTPS or a password, and send tokens to another"
    " machine in plain text.",
)
def main(
    server: str,
    token: str | None,
    token_file: str | None,
    password_file: Path | None,
    insecure: bool,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_server_name: str | None,
    **settings: Any,  # noqa: ANN401 - the fields of Settings
) -> Settings:
    """Show a page on which the model learns, and serve its HTTP API.

    The page calls the server with the token of this command. Callers of the HTTP API bring their
    own.
    """
    upstream = Upstream(server, tls_ca, tls_cert, tls_key, tls_server_name, insecure)
    return Settings(
        upstream,
        token=read_token(token, token_file),
        password=(None if password_file is None else read_secret("--password-file", password_file)),
        insecure=insecure,
        **settings,
    )


def start() -> NoReturn:
    """Run the command and end the process; print one line on stderr if web cannot start."""
    streams.prepare()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core would print lines of its own
    try:
        settings = main(prog_name="mnist37 web", standalone_mode=False)
        sys.stdout.flush()
        if isinstance(settings, Settings):
            serve(settings)
            streams.discard_output()  # what stdout did not take does not matter
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except (CannotStart, errors.InvalidInput) as error:
        fail(str(error), 2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # the reader of the help has gone
        streams.discard_output()
        sys.exit(1)
    except OSError as error:
        streams.discard_output()
        fail(f"the output cannot be written: {error.strerror}", 1)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end can be interrupted too
    sys.exit(0)


def serve(settings: Settings) -> None:
    """Serve until a signal ends web.

    Raises:
        CannotStart: a setting cannot be used, or the system lacks what web needs.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    from mnist37_web.app import build
    from mnist37_web.listening import serving, sockets

    listeners = sockets.listen(settings.host, settings.port)
    ports = {listener.getsockname()[1] for listener in listeners}
    app, stop = build(settings, lambda: ports)
    try:
        serving.serve(app, settings, listeners, stop)
    except OSError as error:
        raise CannotStart(f"the system refuses what web needs: {error}") from error


def fail(text: str, status: int) -> NoReturn:
    """Print why web cannot start, if stderr takes it, and end the process."""
    try:
        click.echo(f"mnist37 web: {text}", err=True)
    except OSError:
        streams.discard_errors()
    sys.exit(status)
