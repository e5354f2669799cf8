"""The commands that train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    client_options,
    json_option,
    print_json,
    print_version,
    request_id_option,
)

if TYPE_CHECKING:
    from mnist37_client._rpc.methods.calls import RunStateName
    from mnist37_client.client import Client
    from mnist37_client.results import Progress
    from mnist37_client.tensorboard import TensorBoardLog

tensorboard_option = click.option(
    "--tensorboard",
    "log_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the curve to event files in FOLDER, for TensorBoard.",
)


def open_log(folder: Path | None) -> TensorBoardLog | None:
    """Return the log in a folder, if one is given, before a run begins: it may be refused."""
    if folder is None:
        return None
    from mnist37_client.tensorboard import TensorBoardLog

    return TensorBoardLog(folder)


@commands.command()
@click.argument("epochs", type=int)
@click.option(
    "--learning-rate",
    type=float,
    metavar="RATE",
    help="Set the learning rate to RATE.  [default: 1.0]",
)
@click.option("--batch-size", type=int, metavar="N", help="Use N images a step.  [default: 256]")
@click.option("--seed", type=int, metavar="N", help="Seed the shuffling with N.  [default: 42]")
@click.option("--name", metavar="NAME", help="Label the run, for `mnist37 runs --name NAME`.")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "linear", "cosine"]),
    help="Change the learning rate from epoch to epoch.  [default: constant]",
)
@click.option(
    "--final-learning-rate",
    type=float,
    metavar="RATE",
    help="End a linear or cosine schedule with RATE.",
)
@click.option(
    "--warmup-epochs", type=int, metavar="N", help="Raise the rate over N epochs.  [default: 0]"
)
@click.option(
    "--patience",
    type=int,
    metavar="N",
    help="Stop after N epochs without a lower validation loss.",
)
@click.option(
    "--min-delta", type=float, metavar="X", help="Count a loss as lower from X on.  [default: 0]"
)
@tensorboard_option
@request_id_option
@json_option
@client_options
def train(
    client: Client,
    epochs: int,
    as_json: bool,
    log_folder: Path | None,
    **settings: Any,  # noqa: ANN401 - the options of `Client.train`
) -> None:
    """Train for EPOCHS epochs and show the progress.

    Ctrl-C stops the run, and the model keeps what it learnt. With a --request-id, the same command
    continues the run. The server tags the version with the lowest validation loss: best@RUN.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import (
        announce_waiting,
        draw_loss_curve,
        show_progress,
        summarize_end,
    )

    log = open_log(log_folder)
    console = Console()
    announce = partial(click.echo, err=True) if as_json else partial(console.print, highlight=False)
    items = announce_waiting(client.train(epochs, **settings), announce)
    if log is not None:
        items = log.record(items, lambda version: client.get_model(version=version))
    if as_json:
        for progress in items:
            print_json(**dataclasses.asdict(progress))
        return
    history = show_progress(items, epochs, console)
    if len(history) > 1:
        console.print()
        console.print(draw_loss_curve(history, console.width), highlight=False, markup=False)
    for line in summarize_end(history[-1]):
        click.echo(line)


@commands.command()
@click.option(
    "--learning-rate",
    type=float,
    metavar="RATE",
    help="Set the learning rate to RATE.  [default: 1.0]",
)
@request_id_option
@json_option
@client_options
def step(
    client: Client, learning_rate: float | None, request_id: str | None, as_json: bool
) -> None:
    """Do one step of SGD on the training set's next 256 images."""
    result = client.step(learning_rate=learning_rate, request_id=request_id)
    if as_json:
        print_json(**dataclasses.asdict(result))
    else:
        click.echo(f"loss {result.loss:.6f} before the step, version {result.version} after it")


@commands.command()
@click.option(
    "--seed", type=int, metavar="N", help="Seed the random numbers with N.  [default: 42]"
)
@click.option(
    "--std", type=float, metavar="STD", help="Set the standard deviation to STD.  [default: 1.0]"
)
@request_id_option
@json_option
@client_options
def init(
    client: Client,
    seed: int | None,
    std: float | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Replace the parameters by new random ones."""
    print_version(client.initialize(seed=seed, std=std, request_id=request_id), as_json)


@commands.command()
@click.argument("run", type=int, required=False)
@click.option("--follow", is_flag=True, help="Watch the run until it ends.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the run's curve as CSV.")
@click.option("--name", metavar="NAME", help="List only runs with this name.")
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "finished", "interrupted"]),
    help="List only runs in this state.",
)
@click.option("--limit", type=int, default=100, metavar="N", help="List at most N runs.")
@tensorboard_option
@json_option
@client_options
def runs(
    client: Client,
    run: int | None,
    follow: bool,
    as_csv: bool,
    name: str | None,
    state: RunStateName | None,
    limit: int,
    log_folder: Path | None,
    as_json: bool,
) -> None:
    """List the training runs, or show RUN.

    The command shows the run's settings and its loss curve. Without a RUN, --follow, --csv and
    --tensorboard are about the newest one.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import show_run, summarize_run
    from mnist37_client.results import Progress

    if run is not None or follow or as_csv or log_folder is not None:
        log = open_log(log_folder)
        items = client.watch_run(run, follow=follow)
        if log is not None:
            items = log.record(items, lambda version: client.get_model(version=version))
        if as_csv:
            print_csv(item for item in items if isinstance(item, Progress))
            return
        if not as_json:
            show_run(items, follow, Console())
            return
        for item in items:
            print_json(**dataclasses.asdict(item))
        return
    for summary in client.runs(name=name, state=state, limit=limit):
        if as_json:
            print_json(**dataclasses.asdict(summary))
        else:
            click.echo(summarize_run(summary))


def print_csv(curve: Iterable[Progress]) -> None:
    """Print a run's curve as CSV, with a header."""
    columns = ("epoch", "train_loss", "valid_loss", "valid_accuracy", "version", "elapsed")
    click.echo(",".join(columns))
    for progress in curve:
        click.echo(",".join(str(getattr(progress, column)) for column in columns))
