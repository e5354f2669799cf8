"""The command `mnist37 cluster`: its options become the settings of a cluster."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from mnist37_client.errors import InvalidInput
from mnist37_server.command_line.command import Command
from mnist37_server.errors import CannotStart

from mnist37_cluster.settings import ClusterSettings

NAME = "mnist37 cluster"
# The same path on each node; a relative one would be in another folder there.
FILE = click.Path(path_type=Path, dir_okay=False, resolve_path=True)
DEFAULT = ClusterSettings(1)


class Commands(click.Group):
    """A group whose first word may be missing: then it runs a cluster."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in the place of a missing word."""
        known = {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if args[:1] and args[0] in known else ["run", *args])


@click.group(
    cls=Commands,
    context_settings={
        "show_default": True,
        "auto_envvar_prefix": "MNIST37_CLUSTER",
        "help_option_names": ["-h", "--help"],
    },
    options_metavar="",
    subcommand_metavar="[run OPTIONS | status | restart]",
)
def cluster() -> None:
    """Run a server and its followers on the nodes of a Ray cluster.

    `mnist37 cluster --replicas 3` is short for `mnist37 cluster run --replicas 3`.
    """


ray_option = click.option(
    "--ray",
    envvar="MNIST37_CLUSTER_RAY",
    metavar="HOST:PORT",
    help="Use the Ray that runs there, of which this machine is a node; without it a Ray is started"
    " on this machine.",
)


@cluster.command()
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    required=True,
    envvar="MNIST37_CLUSTER_REPLICAS",
    metavar="N",
    help="How many followers to run.",
)
@ray_option
@click.option(
    "--owner",
    envvar="MNIST37_CLUSTER_OWNER",
    metavar="HOST:PORT",
    help="The server that owns the model, outside Ray; without it one is started on this node.",
)
@click.option(
    "--address",
    envvar="MNIST37_CLUSTER_ADDRESS",
    metavar="HOST:PORT",
    help="Where the owner that is started listens; port 0 picks a free one."
    "  [default: port 50051 of this node]",
)
@click.option(
    "--state",
    envvar="MNIST37_CLUSTER_STATE",
    metavar="DIR|:memory:",
    help="The folder of that owner, on this node.  [default: mnist37 in the user's state folder]",
)
@click.option(
    "--device",
    default=DEFAULT.device,
    envvar="MNIST37_CLUSTER_DEVICE",
    metavar="auto|cpu|cuda|cuda:N",
    help="Where that owner trains the model.",
)
@click.option(
    "--front",
    is_flag=True,
    envvar="MNIST37_CLUSTER_FRONT",
    help="Run native fronts in the place of followers.",
)
@click.option(
    "--tls-cert",
    type=FILE,
    envvar="MNIST37_CLUSTER_TLS_CERT",
    help="The certificate of each server, in PEM; turns TLS on.",
)
@click.option(
    "--tls-key", type=FILE, envvar="MNIST37_CLUSTER_TLS_KEY", help="Its private key, in PEM."
)
@click.option(
    "--client-ca",
    type=FILE,
    envvar="MNIST37_CLUSTER_CLIENT_CA",
    help="Accept only callers with a certificate that this authority, in PEM, has signed.",
)
@click.option(
    "--tokens",
    type=FILE,
    envvar="MNIST37_CLUSTER_TOKENS",
    help="Accept only callers with a token of this file.",
)
@click.option(
    "--owner-tls-ca",
    type=FILE,
    envvar="MNIST37_CLUSTER_OWNER_TLS_CA",
    help="The authority, in PEM, that signed the servers' certificates, for their followers.",
)
@click.option(
    "--owner-tls-cert",
    type=FILE,
    envvar="MNIST37_CLUSTER_OWNER_TLS_CERT",
    help="The followers' certificate, in PEM, for an owner that wants one.",
)
@click.option(
    "--owner-tls-key",
    type=FILE,
    envvar="MNIST37_CLUSTER_OWNER_TLS_KEY",
    help="Its private key, in PEM.",
)
@click.option(
    "--owner-token-file",
    type=FILE,
    envvar="MNIST37_CLUSTER_OWNER_TOKEN_FILE",
    help="The file with the followers' token, whose role at the owner is follow.",
)
@click.option(
    "--tls-server-name",
    envvar="MNIST37_CLUSTER_TLS_SERVER_NAME",
    metavar="NAME",
    help="The name in the servers' certificates, if it differs from those in their addresses.",
)
@click.option(
    "--max-age",
    type=float,
    envvar="MNIST37_CLUSTER_MAX_AGE",
    metavar="SECONDS",
    help="Refuse reads once a follower has not been up to date for this long.  [default: never]",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="MNIST37_CLUSTER_INSECURE",
    help="Let the servers listen beyond this machine without TLS, or without a check of callers.",
)
@click.option(
    "--expose-ray",
    is_flag=True,
    envvar="MNIST37_CLUSTER_EXPOSE_RAY",
    help="Start Ray although other machines reach it.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=DEFAULT.log_level,
    envvar="MNIST37_CLUSTER_LOG_LEVEL",
    help="The lowest level that the servers log.",
)
def run(**settings: Any) -> Callable[[], int]:  # noqa: ANN401 - the fields of ClusterSettings
    """Run a cluster until Ctrl-C, which ends all that the command has begun.

    Ray starts a server again that has ended, on another node if its own is gone. The files have to
    be on each node.
    """
    from mnist37_cluster import running

    return lambda: running.run(ClusterSettings(**settings))


@cluster.command()
@ray_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def status(ray: str | None, as_json: bool) -> Callable[[], int]:
    """Show the nodes, the servers, their addresses, and how old their versions are."""
    from mnist37_cluster import running

    def show(state: dict[str, Any], lines: list[str]) -> None:
        click.echo(json.dumps(state) if as_json else "\n".join(lines))

    return lambda: running.show_status(ray, show)


@cluster.command()
@ray_option
def restart(ray: str | None) -> Callable[[], int]:
    """Restart the followers one after the other; each serves before the next one ends."""
    from mnist37_cluster import running

    return lambda: running.restart(ray, click.echo)


def start() -> NoReturn:
    """Run the command and end the process; print one line on stderr if it cannot start."""
    status = 0
    try:
        command = cluster(prog_name=NAME, standalone_mode=False)
        if callable(command):
            status = command()
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = error.exit_code
    except click.ClickException as error:
        status = fail(error.format_message(), error.exit_code)
    except (CannotStart, InvalidInput) as error:
        status = fail(str(error), 2)
    except OSError as error:
        status = fail(f"the output cannot be written: {error.strerror}", 1)
    logging.shutdown()
    os._exit(status)


def fail(text: str, status: int) -> int:
    """Print why the command cannot go on, if stderr takes it; return the exit status."""
    with suppress(OSError):
        click.echo(f"{NAME}: {text}", err=True)
    return status
