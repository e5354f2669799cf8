"""What the commands share: how they reach the server, and how they print a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

DEFAULT_ADDRESS = "127.0.0.1:50051"

F = TypeVar("F", bound=Callable[..., Any])


def talks_to_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say how to reach the server, and the client they make."""

    @click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        envvar="MNIST37_ADDRESS",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server to talk to.",
    )
    @click.option(
        "--retry-for",
        type=click.FloatRange(min=0),
        default=60,
        envvar="MNIST37_RETRY_FOR",
        show_envvar=True,
        metavar="SECONDS",
        help="How long to wait for a server that went away.",
    )
    @wraps(command)
    def talk(address: str, retry_for: float, **values: object) -> None:
        from mnist37_client.client import Client

        with Client(address, retry_for=retry_for) as client:
            command(client=client, **values)

    return talk


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
