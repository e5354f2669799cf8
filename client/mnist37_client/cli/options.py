"""Options and output that the commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial, reduce, wraps
from typing import Any, TypeVar

import click

from mnist37_client.errors import InvalidInput
from mnist37_client.files.secret_file import read_secret

DEFAULT_ADDRESS = "127.0.0.1:50051"

F = TypeVar("F", bound=Callable[..., Any])


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the server's address and for TLS to a command."""

    @click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        envvar="MNIST37_ADDRESS",
        show_envvar=True,
        metavar="HOST:PORT",
        help="Call the server at this address.",
    )
    @tls_options
    @wraps(command)
    def run_command(**values: object) -> None:
        # gRPC's core would print its own line about a TLS handshake, beside ours.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        command(**values)

    return run_command


def tls_options(command: F) -> F:
    """Add the options for TLS to the server to a command."""
    options = (
        _file_option(
            "--tls-ca",
            "Turn TLS on and accept a server whose certificate this authority, in PEM, signed;"
            " `public` means the authorities that gRPC brings.",
            "MNIST37_TLS_CA",
        ),
        _file_option(
            "--tls-cert",
            "Send this certificate, in PEM, to a server that requires one of its callers.",
            "MNIST37_CLIENT_CERT",
        ),
        _file_option(
            "--tls-key", "Use this private key, in PEM, with the certificate.", "MNIST37_CLIENT_KEY"
        ),
        click.option(
            "--tls-server-name",
            envvar="MNIST37_TLS_SERVER_NAME",
            show_envvar=True,
            metavar="NAME",
            help="Expect this name in the server's certificate, if it differs from the name in the"
            " address.",
        ),
    )
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def token_options(command: F) -> F:
    """Add the options for the token of a client to a command."""
    options = (
        click.option(
            "--token",
            envvar="MNIST37_TOKEN",
            show_envvar=True,
            metavar="TOKEN",
            help="Send this token. Other users of the machine can see a flag, but not an"
            " environment variable.",
        ),
        _file_option("--token-file", "Read the token from this file.", "MNIST37_TOKEN_FILE"),
    )
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a client to a command, and call the command with the client."""

    @connection_options
    @click.option(
        "--retry-for",
        type=click.FloatRange(min=0),
        default=60,
        envvar="MNIST37_RETRY_FOR",
        show_envvar=True,
        metavar="SECONDS",
        help="Retry for SECONDS when the server is away.",
    )
    @token_options
    @click.option(
        "--insecure",
        is_flag=True,
        envvar="MNIST37_CLIENT_INSECURE",
        show_envvar=True,
        help="Send the token to another machine in plain text too.",
    )
    @wraps(command)
    def run_command(
        address: str | None,
        retry_for: float,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_server_name: str | None,
        token: str | None,
        token_file: str | None,
        insecure: bool,
        replicas: str | None = None,
        **values: object,
    ) -> None:
        from mnist37_client.client import Client

        connect = partial(
            Client,
            address,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_server_name=tls_server_name,
            token=read_token(token, token_file),
            insecure=insecure,
        )
        # For a question beside the command's own, which must not wait as long.
        click.get_current_context().obj = connect
        with connect(replicas=replicas, retry_for=retry_for) as client:
            command(client=client, **values)

    return run_command


def reader_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a client that reads to a command, and call the command with the client."""

    @client_options
    @click.option(
        "--replicas",
        envvar="MNIST37_REPLICAS",
        show_envvar=True,
        metavar="IP:PORT,…",
        help="Ask these followers of the server first; `dns:///NAME:PORT` means all addresses of a"
        " name, `owner` those that the server lists.",
    )
    @wraps(command)
    def run_command(**values: object) -> None:
        command(**values)

    return run_command


def _file_option(name: str, help_text: str, variable: str) -> Callable[[F], F]:
    """Return an option that names a file.

    A variable of `mnist37 serve` has one meaning: in a container both read the same environment.
    """
    return click.option(name, envvar=variable, show_envvar=True, metavar="FILE", help=help_text)


def read_token(token: str | None, file: str | None) -> str | None:
    """Return the token from the option --token or from the file of --token-file, or None."""
    if file is None:
        return token and token.strip()
    if token is not None:
        raise click.UsageError("--token and --token-file: give one of them")
    try:
        return read_secret("--token-file", file)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error


class VersionOrTag(click.ParamType[int | str]):
    """The number of a version, or a tag."""

    name = "version"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> int | str:
        """Return the number, or the text of a tag."""
        text = str(value)
        return int(text) if text.isascii() and text.isdecimal() else text


VERSION_OR_TAG = VersionOrTag()


def version_option(command: F) -> F:
    """Add the option --version to a command that reads the model."""
    return click.option(
        "--version",
        type=VERSION_OR_TAG,
        metavar="VERSION",
        help="Use this retained version, or tag: `best@7`.  [default: the newest]",
    )(command)


def json_option(command: F) -> F:
    """Add the option --json to a command."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object a line, for scripts."
    )(command)


def request_id_option(command: F) -> F:
    """Add the option --request-id to a command."""
    return click.option(
        "--request-id",
        metavar="ID",
        help="Make the command safe to repeat: the server does the write of one ID once.",
    )(command)


def print_json(**values: object) -> None:
    """Print one line of JSON for a script."""
    click.echo(json.dumps(values, default=str))


def print_version(version: int, as_json: bool) -> None:
    """Print the version that a write made."""
    if as_json:
        print_json(version=version)
    else:
        click.echo(f"version {version}")
