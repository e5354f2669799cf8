"""The commands that train."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    json_option,
    print_json,
    print_version,
    request_id_option,
    talks_to_server,
)

if TYPE_CHECKING:
    from mnist37_client.client import Client


@commands.command()
@click.argument("epochs", type=int)
@click.option("--learning-rate", type=float, metavar="RATE", help="[default: 1.0]")
@click.option("--batch-size", type=int, metavar="N", help="Images a step.  [default: 256]")
@click.option("--seed", type=int, metavar="N", help="Of the shuffling.  [default: 42]")
@request_id_option
@json_option
@talks_to_server
def train(
    client: Client,
    epochs: int,
    learning_rate: float | None,
    batch_size: int | None,
    seed: int | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Train for EPOCHS epochs and show how it goes.

    Ctrl-C stops the run; the model keeps what it learnt. With a --request-id, the same command
    goes on where it stopped.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import draw_loss_curve, show_progress

    run = client.train(
        epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        request_id=request_id,
    )
    if as_json:
        for progress in run:
            print_json(**dataclasses.asdict(progress))
        return
    console = Console()
    seen = show_progress(run, epochs, console)
    if len(seen) > 1:
        console.print()
        console.print(draw_loss_curve(seen, console.width), highlight=False, markup=False)
    click.echo(f"validation accuracy {seen[-1].valid_accuracy:.4f}, version {seen[-1].version}")


@commands.command()
@click.option("--learning-rate", type=float, metavar="RATE", help="[default: 1.0]")
@request_id_option
@json_option
@talks_to_server
def step(
    client: Client, learning_rate: float | None, request_id: str | None, as_json: bool
) -> None:
    """Do one step of SGD on the training set's next 256 images."""
    done = client.step(learning_rate=learning_rate, request_id=request_id)
    if as_json:
        print_json(**dataclasses.asdict(done))
    else:
        click.echo(f"loss {done.loss:.6f} before the step, version {done.version} after it")


@commands.command()
@click.option("--seed", type=int, metavar="N", help="Of the draw.  [default: 42]")
@click.option("--std", type=float, metavar="STD", help="Standard deviation.  [default: 1.0]")
@request_id_option
@json_option
@talks_to_server
def init(
    client: Client,
    seed: int | None,
    std: float | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """Replace the parameters by fresh random ones."""
    print_version(client.initialize(seed=seed, std=std, request_id=request_id), as_json)


@commands.command()
@click.argument("run", type=int, required=False)
@click.option("--follow", is_flag=True, help="Watch the run go on, until it ends.")
@json_option
@talks_to_server
def runs(client: Client, run: int | None, follow: bool, as_json: bool) -> None:
    """List the training runs; or show RUN: its settings, its loss curve, and how it goes on.

    With --follow and no RUN it is the newest.
    """
    from rich.console import Console

    from mnist37_client.cli.terminal import show_run, summarize_run

    if run is not None or follow:
        said = client.watch_run(run, follow=follow)
        if not as_json:
            show_run(said, follow, Console())
            return
        for thing in said:
            print_json(**dataclasses.asdict(thing))
        return
    for found in client.runs():
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            click.echo(summarize_run(found))
