"""What the commands share: how they reach the server, and how they print a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

DEFAULT_ADDRESS = "127.0.0.1:50051"

F = TypeVar("F", bound=Callable[..., Any])


def reaches_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say where the server is, and how to come there."""

    @click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        envvar="MNIST37_ADDRESS",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server to talk to.",
    )
    @_file_option(
        "--tls-ca",
        "Talk over TLS, to a server whose certificate this authority, in PEM, has signed; `public`"
        " stands for those that gRPC comes with.",
    )
    @_file_option("--tls-cert", "Your own certificate, for a server that asks for one.")
    @_file_option("--tls-key", "Its private key.")
    @click.option(
        "--tls-server-name",
        envvar="MNIST37_TLS_SERVER_NAME",
        show_envvar=True,
        metavar="NAME",
        help="The name in the server's certificate, where it is not the address's.",
    )
    @wraps(command)
    def reach(**values: object) -> None:
        command(**values)

    return reach


def talks_to_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say how to reach the server, and the client they make."""

    @reaches_server
    @click.option(
        "--retry-for",
        type=click.FloatRange(min=0),
        default=60,
        envvar="MNIST37_RETRY_FOR",
        show_envvar=True,
        metavar="SECONDS",
        help="How long to wait for a server that went away.",
    )
    @click.option(
        "--token",
        envvar="MNIST37_TOKEN",
        show_envvar=True,
        metavar="TOKEN",
        help="Your token; others on this machine can see it here, but not in the environment.",
    )
    @_file_option("--token-file", "The file that holds your token.")
    @click.option(
        "--insecure",
        is_flag=True,
        envvar="MNIST37_INSECURE",
        show_envvar=True,
        help="Send the token in plain text even to another machine.",
    )
    @wraps(command)
    def talk(
        address: str,
        retry_for: float,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_server_name: str | None,
        token: str | None,
        token_file: str | None,
        insecure: bool,
        **values: object,
    ) -> None:
        from mnist37_client.client import Client

        with Client(
            address,
            retry_for=retry_for,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_server_name=tls_server_name,
            token=_token(token, token_file),
            insecure=insecure,
        ) as client:
            command(client=client, **values)

    return talk


def _file_option(name: str, text: str) -> Callable[[F], F]:
    """An option that names a file."""
    variable = "MNIST37_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, metavar="FILE", help=text)


def _token(token: str | None, file: str | None) -> str | None:
    """The token itself, from wherever it comes."""
    if file is None:
        return token
    if token is not None:
        raise click.UsageError("--token and --token-file: give one of them")
    try:
        return Path(file).read_text(errors="replace").strip()
    except OSError as error:
        raise click.UsageError(f"--token-file: cannot read {file}: {error.strerror}") from error


def json_option(command: F) -> F:
    """--json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object a line, for scripts."
    )(command)


def request_id_option(command: F) -> F:
    """--request-id."""
    return click.option(
        "--request-id", metavar="ID", help="Makes it safe to give the command again: done once."
    )(command)


def print_json(**values: object) -> None:
    """One line for a script."""
    click.echo(json.dumps(values, default=str))


def print_version(version: int, as_json: bool) -> None:
    """The outcome of a write that has no other."""
    if as_json:
        print_json(version=version)
    else:
        click.echo(f"version {version}")
