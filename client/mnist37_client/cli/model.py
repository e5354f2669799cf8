"""The commands that ask the model, and move it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
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
    from mnist37_client._rpc.calls import SplitName
    from mnist37_client.client import Client


@commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--show", is_flag=True, help="Draw each digit as the model sees it.")
@json_option
@talks_to_server
def predict(client: Client, files: tuple[Path, ...], show: bool, as_json: bool) -> None:
    """Say of each FILE, a PNG or JPEG of a handwritten digit, whether it is a 3 or a 7.

    Dark on light or light on dark, of any size: each is prepared as MNIST's images were.
    """
    import numpy as np

    from mnist37_client.cli.terminal import draw_image
    from mnist37_client.digits import read_digit

    images = np.stack([read_digit(path) for path in files])
    prediction = client.predict(images)
    for path, image, digit, three in zip(
        files, images, prediction.digits.tolist(), prediction.probabilities.tolist(), strict=True
    ):
        probability = three if digit == 3 else 1 - three
        if as_json:
            print_json(
                file=str(path), digit=digit, probability=probability, version=prediction.version
            )
            continue
        if show:
            click.echo("\n".join(draw_image(image)))
        click.echo(f"{path}: {digit} ({probability:.1%})")


@commands.command()
@click.option("--split", type=click.Choice(["train", "valid"]), help="Only this one.")
@json_option
@talks_to_server
def loss(client: Client, split: SplitName | None, as_json: bool) -> None:
    """Show the loss and the accuracy on the training and the validation images."""
    from mnist37_client._rpc.calls import SPLITS

    for name in (split,) if split else SPLITS:
        found = client.get_loss(name)
        if as_json:
            print_json(split=name, **dataclasses.asdict(found))
        else:
            click.echo(
                f"{name}: loss {found.loss:.6f}, accuracy {found.accuracy:.4f} on"
                f" {found.count:,} images, version {found.version}"
            )


@commands.command()
@json_option
@talks_to_server
def model(client: Client, as_json: bool) -> None:
    """Show the model: its version, its digest and where it lives; with --json its weights too."""
    found = client.get_model()
    if as_json:
        print_json(
            version=found.version,
            digest=found.digest,
            device=found.device,
            bias=float(found.bias),
            weights=found.weights.tolist(),
        )
    else:
        click.echo(f"version {found.version} on {found.device}, digest {found.digest}")


@commands.command()
@click.option("--limit", type=int, default=20, metavar="N", help="How many, newest first.")
@json_option
@talks_to_server
def versions(client: Client, limit: int, as_json: bool) -> None:
    """List the retained versions of the model."""
    from mnist37_client.cli.terminal import format_time

    for found in client.versions(limit):
        if as_json:
            print_json(**dataclasses.asdict(found))
        else:
            by = f"run {found.run}" if found.run else found.origin
            click.echo(f"{found.version:>10}  {format_time(found.committed_at)}  {by}")


@commands.command()
@click.argument("version", type=int)
@request_id_option
@json_option
@talks_to_server
def restore(client: Client, version: int, request_id: str | None, as_json: bool) -> None:
    """Make a retained VERSION's parameters the model's again, as a new version."""
    print_version(client.restore(version, request_id=request_id), as_json)


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", type=int, metavar="N", help="A retained one.  [default: the newest]")
@talks_to_server
def export(client: Client, file: Path, version: int | None) -> None:
    """Write the parameters to FILE, a .safetensors that torch.nn.Linear(784, 1) can load."""
    from mnist37_client.cli.safetensors_file import save_model

    found = client.get_model(version=version)
    save_model(found, file)
    click.echo(f"version {found.version}, digest {found.digest}")


@commands.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@request_id_option
@json_option
@talks_to_server
def import_(client: Client, file: Path, request_id: str | None, as_json: bool) -> None:
    """Make the parameters in FILE, a .safetensors, the model's, as a new version."""
    from mnist37_client.cli.safetensors_file import load_model

    print_version(client.import_model(*load_model(file), request_id=request_id), as_json)
