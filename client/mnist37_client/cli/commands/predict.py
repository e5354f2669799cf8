"""The command that says which digit a picture shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist37_client.cli.group import commands
from mnist37_client.cli.options import json_option, print_json, reader_options, version_option

if TYPE_CHECKING:
    from mnist37_client.client import Client

STDIN = Path("-")
SUFFIXES = {".png", ".jpg", ".jpeg", ".mpo", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
INVALID = 2  # the exit status if any of the pictures is refused
HINT_SECONDS_MAX = 5  # of the wait for what the answers do not need
NEWEST = 20  # versions among which the one that answered is looked for


@commands.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--show", is_flag=True, help="Draw each digit as the model gets it.")
@version_option
@json_option
@reader_options
def predict(
    client: Client,
    files: tuple[Path, ...],
    show: bool,
    version: int | str | None,
    as_json: bool,
) -> None:
    """Predict whether each FILE shows a 3 or a 7.

    A FILE is a PNG, JPEG, WebP, GIF, BMP or TIFF, a folder of such files, or - for standard
    input. The digit may be dark on light or light on dark, drawn or photographed. The command
    finds it and prepares it as MNIST prepared its images. It names each picture without one
    whole digit on standard error, predicts the others, and ends with status 2.
    """
    import numpy as np

    from mnist37_client.cli.terminal import draw_image
    from mnist37_client.errors import InvalidInput
    from mnist37_client.pictures import read_digit

    paths, images, refused = [], [], False
    for path in _walk(files):
        try:
            images.append(read_digit(sys.stdin.buffer if path == STDIN else path))
            paths.append(path)
        except InvalidInput as error:
            click.echo(f"mnist37: {error}", err=True)
            refused = True
    if images:
        prediction = client.predict(np.stack(images), version=version)
        for path, image, digit, three in zip(
            paths,
            images,
            prediction.digits.tolist(),
            prediction.probabilities.tolist(),
            strict=True,
        ):
            probability = three if digit == 3 else 1 - three
            if show:
                click.echo("\n".join(draw_image(image)), err=as_json)
            if as_json:
                print_json(
                    file=str(path), digit=digit, probability=probability, version=prediction.version
                )
            else:
                click.echo(f"{path}: {digit} ({probability:.1%})")
        if _is_untrained(prediction.version):
            click.echo(
                f"mnist37: version {prediction.version} was never trained, so its answers mean"
                " nothing; run `mnist37 train 20`",
                err=True,
            )
    if refused:
        sys.exit(INVALID)


def _walk(files: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files, and instead of a folder the pictures in it and below it, by name.

    A folder without a picture is yielded itself, and is refused as any file without one.
    """
    for path in files:
        if path == STDIN or not os.path.isdir(path):  # noqa: PTH112 - raises nothing
            yield path
            continue
        pictures = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
        yield from pictures or [path]


def _is_untrained(version: int) -> bool:
    """Return whether random parameters answered: the version was made by `initialize`.

    The owner alone lists versions. If a follower is asked, or the owner is away, nothing is said;
    nor about a version that is not among the newest, and so was succeeded by others meanwhile.
    """
    from mnist37_client.errors import Mnist37Error

    connect = click.get_current_context().obj
    try:
        with connect(retry_for=0, timeout=HINT_SECONDS_MAX) as client:
            newest = client.versions(NEWEST)
    except Mnist37Error:
        return False
    return any(one.version == version and one.origin == "initialize" for one in newest)
