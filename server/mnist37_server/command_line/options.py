"""The options of `mnist37 serve`, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from mnist37_server.config import Config

IN_MEMORY = ":memory:"
DEFAULT = Config()
FILE = click.Path(path_type=Path, dir_okay=False)


def refuse_front(_context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    """Raise UsageError for --front, which `mnist37 serve` takes out before it starts a server."""
    if is_given:
        raise click.UsageError("--front: it has to be a word of its own after `mnist37 serve`")


OPTIONS = [
    click.option(
        "--address",
        default=DEFAULT.address,
        metavar="HOST:PORT",
        help="Where to listen; port 0 picks a free one.",
    ),
    click.option(
        "--device",
        default=DEFAULT.device,
        metavar="auto|cpu|cuda|cuda:N",
        help="Where the model is trained; auto is CUDA where there is a device.",
    ),
    click.option(
        "--state",
        metavar=f"DIR|{IN_MEMORY}",
        help=f"The folder that keeps the model; {IN_MEMORY} keeps nothing.  "
        "[default: mnist37 in the user's state folder]",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Read MNIST from this folder with torchvision, instead of the shipped images.",
    ),
    click.option("--download", is_flag=True, help="Let torchvision fetch MNIST into --data-root."),
    click.option(
        "--shutdown-grace",
        type=float,
        default=DEFAULT.shutdown_grace,
        metavar="SECONDS",
        help="How long predictions under way may go on at the end.",
    ),
    click.option(
        "--max-message-mib",
        type=click.IntRange(1, 1024),
        default=DEFAULT.max_message_mib,
        metavar="MIB",
        help="How large a message may be.",
    ),
    click.option(
        "--max-rpcs",
        type=click.IntRange(0),
        default=DEFAULT.max_rpcs,
        metavar="N",
        help="How many calls may be in flight, calls that wait for a thread included; 0: no limit.",
    ),
    click.option(
        "--max-pending-writes",
        type=click.IntRange(1),
        default=DEFAULT.max_pending_writes,
        metavar="N",
        help="How many callers may wait for a write or a run.",
    ),
    click.option(
        "--max-streams",
        type=click.IntRange(1),
        default=DEFAULT.max_streams,
        metavar="N",
        help="How many streams of predictions and WatchRuns may be open, and how many Trains.",
    ),
    click.option(
        "--max-followers",
        type=click.IntRange(0),
        default=DEFAULT.max_followers,
        metavar="N",
        help="How many readers may follow this server.",
    ),
    click.option(
        "--message-timeout",
        type=float,
        default=DEFAULT.message_timeout,
        metavar="SECONDS",
        help="How long a caller may take to send its message, and to read the answer.",
    ),
    click.option(
        "--keepalive",
        type=float,
        default=DEFAULT.keepalive,
        metavar="SECONDS",
        help="How long a peer with calls in flight may be silent before the server sends it a"
        " ping.",
    ),
    click.option(
        "--metrics-address",
        metavar="HOST:PORT",
        help="Where Prometheus may ask for metrics; port 0 picks a free one.  [default: nowhere]",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Lines for a terminal, or one JSON object a line for a collector; on stderr.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="The lowest level that is logged; debug has each Step and each refusal.",
    ),
    click.option("--tls-cert", type=FILE, help="The server's certificate, in PEM; turns TLS on."),
    click.option("--tls-key", type=FILE, help="Its private key, in PEM."),
    click.option(
        "--client-ca",
        type=FILE,
        help="Accept only callers with a certificate that this authority, in PEM, has signed.",
    ),
    click.option(
        "--tokens",
        type=FILE,
        help="Accept only callers with a token of this file, whose lines `mnist37 token` makes; the"
        " server reloads it when it changes.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Listen beyond this machine even without TLS, or without a check of callers.",
    ),
    click.option(
        "--max-connection-age",
        type=float,
        metavar="SECONDS",
        help="How old a connection may become; its client then opens another one, perhaps to"
        " another server.  [default: any age]",
    ),
    click.option(
        "--front",
        is_flag=True,
        expose_value=False,
        allow_from_autoenv=False,  # the command line alone chooses the program
        callback=refuse_front,
        help="Start a native front before the server too, which takes its place at --address.",
    ),
    click.option(
        "--follow",
        metavar="HOST:PORT",
        help="Be a follower: answer reads of the model that the server there owns, or follows in"
        " turn; keep no state.",
    ),
    click.option(
        "--follow-tls-ca",
        type=FILE,
        help="The authority, in PEM, that signed the owner's certificate; turns TLS to it on.",
    ),
    click.option(
        "--follow-tls-cert",
        type=FILE,
        help="The follower's certificate, in PEM, for an owner that wants one.",
    ),
    click.option("--follow-tls-key", type=FILE, help="Its private key, in PEM."),
    click.option(
        "--follow-tls-server-name",
        metavar="NAME",
        help="The name in the owner's certificate, if it differs from the name in its address.",
    ),
    click.option(
        "--follow-token-file",
        type=FILE,
        help="The file with the follower's token, whose role at the owner is follow.",
    ),
    click.option(
        "--advertise",
        metavar="HOST:PORT",
        help="Where callers reach the follower, as the owner's list of followers says."
        "  [default: --address]",
    ),
    click.option(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help="Refuse reads once the follower has not been up to date for this long."
        "  [default: never]",
    ),
]

# Of the options, by the names of their parameters: those that only an owner of a model has, and
# those that only a follower has, beside --follow.
OWNERS_ALONE = ("state", "data_root", "download", "max_pending_writes")
FOLLOWERS_ALONE = (
    "follow_tls_ca",
    "follow_tls_cert",
    "follow_tls_key",
    "follow_tls_server_name",
    "follow_token_file",
    "advertise",
    "max_age",
)


def add_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with all options, for click."""
    return reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), function)
