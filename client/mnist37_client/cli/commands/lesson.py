"""The command that copies the lesson's notebook and opens it."""

from __future__ import annotations

import importlib.util
import shlex
from importlib import resources
from pathlib import Path

import click

from mnist37_client.cli.group import commands
from mnist37_client.errors import InvalidInput
from mnist37_client.files.new_file import write_new
from mnist37_client.processes import python_process

NOTEBOOK = "lesson.ipynb"
# What the notebook needs beside the client: of the extras lesson, web and server.
NEEDED = ("jupyterlab", "ipykernel", "matplotlib", "starlette", "numba", "torch")


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--copy-only", is_flag=True, help="Copy the notebook and do not open it.")
def lesson(folder: Path, copy_only: bool) -> None:
    """Open the lesson in Jupyter: from random numbers to a live model.

    The command copies the notebook to FOLDER, by default the current one. A copy that is there
    already is kept, with your changes. The command prints how it starts Jupyter: for options of
    Jupyter's own, such as --allow-root or --no-browser, run that line with them.
    """
    notebook = folder / NOTEBOOK
    shipped = resources.files("mnist37_lesson").joinpath(NOTEBOOK).read_bytes()
    found = read_or_write(notebook, shipped)
    if found is None:
        click.echo(f"{notebook}: copied")
    elif found == shipped:
        click.echo(f"{notebook}: already there")
    else:
        click.echo(f"{notebook}: kept with its changes; for a new one, give another FOLDER")
    if copy_only:
        return
    check_installed()
    command = [*python_process.command("jupyterlab"), str(notebook)]
    click.echo(f"starting Jupyter: {shlex.join(command)}")
    python_process.execute(command)


def read_or_write(path: Path, content: bytes) -> bytes | None:
    """Return the content of a file; if there is none, write it, and its folder, and return None.

    Raises:
        InvalidInput: the folder or the file cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidInput(f"{path.parent}: is a file; give a folder, or none") from None
    except OSError as error:
        raise InvalidInput(f"{path.parent}: cannot be made: {error.strerror}") from None
    try:
        write_new(path, content)
        return None
    except FileExistsError:
        pass
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None


def check_installed() -> None:
    """Raise ClickException unless the packages that the notebook needs are there."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise click.ClickException(
            f"the lesson needs more than this ({', '.join(missing)}):"
            " pip install 'mnist37[lesson,server]'"
        )
