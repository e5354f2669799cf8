"""The server's command line: the options of mnist37 serve."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from mnist37_server.config import Config
from mnist37_server.errors import CannotStart
from mnist37_server.rpc import process

IN_MEMORY = ":memory:"
DEFAULT = Config()
FILE = click.Path(path_type=Path, dir_okay=False)


class Command(click.Command):
    """A command that refuses empty values: mostly, a script's variable is not set.

    An environment variable that is empty counts as not set.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raise UsageError for an empty value."""
        for previous, argument in zip(["", *args], args, strict=False):
            if not argument or (argument.startswith("--") and argument.endswith("=")):
                name = argument.rstrip("=") or previous or str(self.name)
                raise click.UsageError(f"{name}: got an empty value; give another or none", ctx)
        return super().parse_args(ctx, args)


@click.command(
    cls=Command, context_settings={"show_default": True, "auto_envvar_prefix": "MNIST37"}
)
@click.option(
    "--address",
    default=DEFAULT.address,
    metavar="HOST:PORT",
    help="Where to listen; port 0 picks a free one.",
)
@click.option(
    "--device",
    default=DEFAULT.device,
    metavar="auto|cpu|cuda|cuda:N",
    help="Where the model is trained; auto is CUDA where there is a device.",
)
@click.option(
    "--state",
    metavar=f"DIR|{IN_MEMORY}",
    help=f"The folder that keeps the model; {IN_MEMORY} keeps nothing.  "
    "[default: mnist37 in the user's state folder]",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Read MNIST from this folder with torchvision, instead of the shipped images.",
)
@click.option("--download", is_flag=True, help="Let torchvision fetch MNIST into --data-root.")
@click.option(
    "--shutdown-grace",
    type=float,
    default=DEFAULT.shutdown_grace,
    metavar="SECONDS",
    help="How long predictions under way may go on at the end.",
)
@click.option(
    "--max-message-mib",
    type=click.IntRange(1, 1024),
    default=DEFAULT.max_message_mib,
    metavar="MIB",
    help="How large a message may be.",
)
@click.option(
    "--max-rpcs",
    type=click.IntRange(0),
    default=DEFAULT.max_rpcs,
    metavar="N",
    help="How many calls may be in flight, calls that wait for a thread included; 0: no limit.",
)
@click.option(
    "--max-pending-writes",
    type=click.IntRange(1),
    default=DEFAULT.max_pending_writes,
    metavar="N",
    help="How many callers may wait for a write or a run.",
)
@click.option(
    "--max-streams",
    type=click.IntRange(1),
    default=DEFAULT.max_streams,
    metavar="N",
    help="How many PredictStreams and WatchRuns may be open, and how many Trains.",
)
@click.option(
    "--max-followers",
    type=click.IntRange(0),
    default=DEFAULT.max_followers,
    metavar="N",
    help="How many readers may follow the model.",
)
@click.option(
    "--message-timeout",
    type=float,
    default=DEFAULT.message_timeout,
    metavar="SECONDS",
    help="How long a caller may take to send its message, and to read the answer.",
)
@click.option(
    "--keepalive",
    type=float,
    default=DEFAULT.keepalive,
    metavar="SECONDS",
    help="How long a peer with calls in flight may be silent before the server sends it a ping.",
)
@click.option(
    "--metrics-address",
    metavar="HOST:PORT",
    help="Where Prometheus may ask for metrics; port 0 picks a free one.  [default: nowhere]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Lines for a terminal, or one JSON object a line for a collector; on stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The lowest level that is logged; debug has each Step and each refusal.",
)
@click.option("--tls-cert", type=FILE, help="The server's certificate, in PEM; turns TLS on.")
@click.option("--tls-key", type=FILE, help="Its private key, in PEM.")
@click.option(
    "--client-ca",
    type=FILE,
    help="Accept only callers with a certificate that this authority, in PEM, has signed.",
)
@click.option(
    "--tokens",
    type=FILE,
    help="Accept only callers with a token of this file, whose lines `mnist37 token` makes; the"
    " server reloads it when it changes.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine even without TLS, or without a check of callers.",
)
def main(
    address: str,
    device: str,
    state: str | None,
    data_root: Path | None,
    download: bool,
    shutdown_grace: float,
    max_message_mib: int,
    max_rpcs: int,
    max_pending_writes: int,
    max_streams: int,
    max_followers: int,
    message_timeout: float,
    keepalive: float,
    metrics_address: str | None,
    log_format: str,
    log_level: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    tokens: Path | None,
    insecure: bool,
) -> Config:
    """Train and serve one live model: a classifier of handwritten 3s and 7s.

    Prints "listening on HOST:PORT" when it is ready; ends on SIGINT, SIGTERM and SIGHUP. Every
    option can be set by an environment variable too: MNIST37_ADDRESS, MNIST37_DEVICE, ...
    """
    if importlib.util.find_spec("numba") is None:
        sys.exit(
            "mnist37 serve needs more than the client: pip install 'mnist37[server]', or"
            " 'mnist37[serve-cpu]' for a server without torch and CUDA"
        )
    if download and data_root is None:
        raise click.UsageError("--download needs --data-root, the folder to fetch MNIST into")
    config = Config(
        address,
        device,
        _folder(state),
        data_root,
        download,
        shutdown_grace,
        max_message_mib=max_message_mib,
        max_rpcs=max_rpcs,
        max_pending_writes=max_pending_writes,
        max_streams=max_streams,
        max_followers=max_followers,
        message_timeout=message_timeout,
        keepalive=keepalive,
        metrics_address=metrics_address,
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        tokens=tokens,
        insecure=insecure,
    )
    from mnist37_server.observability import handshakes, logs  # import a package of the extras

    if config.tls_cert is not None:
        handshakes.FAILED.follow()
    logs.configure(log_format, log_level)
    # gRPC's core would print its own message about a port in use, beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Off until the server is ready: the objects that imports create stay, and repeated collections
    # would take a tenth of the time of a start.
    gc.disable()
    return config


def _folder(state: str | None) -> Path | None:
    if state == IN_MEMORY:
        return None
    if state is None:
        import platformdirs  # a package of the extras

        try:
            return platformdirs.user_state_path("mnist37")
        except RuntimeError as error:  # no HOME, and a user whom the system does not know
            raise CannotStart(
                f"--state: this user has no home folder; name a folder, or {IN_MEMORY} to keep"
                " nothing"
            ) from error
    return Path(state)


def serve(config: Config) -> None:
    """Serve until a signal ends the server."""
    from mnist37_server.training.compilation import announce

    announce()
    from mnist37_server import app  # imports the kernels; --help and a wrong option do not

    app.run(config)


def start(serve: Callable[[Config], None] = serve) -> None:
    """Run the command and end the process; print one line on stderr if the server cannot start.

    Args:
        serve: serves with the settings of the command line.
    """
    process.prepare()
    try:
        config = parse()
        if config is not None:
            serve(config)
    except CannotStart as error:
        fail(str(error), 2)  # click's exit status for an invalid option
    end(0)


def parse() -> Config | None:
    """Return the settings of the command line, or None after --help; end the process otherwise.

    Raises:
        CannotStart: a setting is not valid.
    """
    try:
        config = main(prog_name="mnist37 serve", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokenPipeError:  # the reader of the help has gone
        end(1)
    except OSError as error:
        fail(f"the output cannot be written: {error.strerror}", 1)
    return config if isinstance(config, Config) else None


def fail(text: str, status: int) -> NoReturn:
    """Print why the server cannot start, if stderr takes it, and end the process."""
    with suppress(OSError):
        click.echo(f"mnist37 serve: {text}", err=True)
    end(status)


def end(status: int) -> NoReturn:
    """End the process at once, when all is committed and closed, and the log is written.

    Python would free gRPC and the compiler piece by piece, which would delay a restart of the
    server by a second. The system frees them at once. Nor does a stdout that fails matter then.
    """
    logging.shutdown()
    os._exit(status)
