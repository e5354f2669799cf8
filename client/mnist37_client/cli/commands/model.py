"""The commands that query the model, and that restore, export and import it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import (
    VERSION_OR_TAG,
    client_options,
    json_option,
    print_json,
    print_version,
    reader_options,
    request_id_option,
    version_option,
)

if TYPE_CHECKING:
    from mnist37_client._rpc.methods.calls import SplitName
    from mnist37_client.client import Client


@commands.command()
@click.option("--split", type=click.Choice(["train", "valid"]), help="Show only this split.")
@version_option
@json_option
@reader_options
def loss(client: Client, split: SplitName | None, version: int | str | None, as_json: bool) -> None:
    """Show the loss, the accuracy and the mistakes on the training and the validation images."""
    from mnist37_client._rpc.methods.calls import SPLITS

    for name in (split,) if split else SPLITS:
        result = client.get_loss(name, version=version)
        version = result.version  # the second split too, though the model goes on
        if as_json:
            print_json(split=name, **dataclasses.asdict(result))
        else:
            click.echo(
                f"{name}: loss {result.loss:.6f}, accuracy {result.accuracy:.4f} on"
                f" {result.count:,} images, version {result.version}"
            )
            click.echo(f"{'':>14}called 3  called 7")
            click.echo(f"    threes {result.threes_right:>11,} {result.threes_called_sevens:>9,}")
            click.echo(f"    sevens {result.sevens_called_threes:>11,} {result.sevens_right:>9,}")


@commands.command()
@version_option
@json_option
@reader_options
def model(client: Client, version: int | str | None, as_json: bool) -> None:
    """Show the model's version, digest and device.

    With --json the command also prints the weights and the bias.
    """
    model = client.get_model(version=version)
    if as_json:
        print_json(
            version=model.version,
            digest=model.digest,
            device=model.device,
            bias=float(model.bias),
            weights=model.weights.tolist(),
        )
    else:
        click.echo(f"version {model.version} on {model.device}, digest {model.digest}")


@commands.command()
@click.option(
    "--limit", type=int, default=20, metavar="N", help="Show at most N versions, newest first."
)
@json_option
@client_options
def versions(client: Client, limit: int, as_json: bool) -> None:
    """List the retained versions of the model."""
    from mnist37_client.cli.terminal import format_time

    for version in client.versions(limit):
        if as_json:
            print_json(**dataclasses.asdict(version))
        else:
            origin = f"run {version.run}" if version.run else version.origin
            click.echo(f"{version.version:>10}  {format_time(version.committed_at)}  {origin}")


@commands.command()
@click.argument("version", type=VERSION_OR_TAG)
@request_id_option
@json_option
@client_options
def restore(client: Client, version: int | str, request_id: str | None, as_json: bool) -> None:
    """Make the parameters of VERSION the model's again.

    VERSION is a retained version, or a tag of one. The command makes a new version of its
    parameters.
    """
    print_version(client.restore(version, request_id=request_id), as_json)


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@version_option
@reader_options
def export(client: Client, file: Path, version: int | str | None) -> None:
    """Write the parameters to FILE, in the format safetensors.

    torch.nn.Linear(784, 1) loads the file.
    """
    from mnist37_client.cli.safetensors_file import save_model

    model = client.get_model(version=version)
    save_model(model, file)
    click.echo(f"version {model.version}, digest {model.digest}")


@commands.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@request_id_option
@json_option
@client_options
def import_(client: Client, file: Path, request_id: str | None, as_json: bool) -> None:
    """Read the parameters from FILE, a .safetensors.

    They become the model's parameters, as a new version.
    """
    from mnist37_client.cli.safetensors_file import load_model

    print_version(client.import_model(*load_model(file), request_id=request_id), as_json)
