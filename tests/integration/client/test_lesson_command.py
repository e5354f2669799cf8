"""Tests of `mnist37 lesson`: the copy of the notebook. tests/lesson opens it in Jupyter."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mnist37_client.cli.commands.lesson import NEEDED

ROOT = Path(__file__).parents[3]
NOTEBOOK = (ROOT / "lesson" / "mnist37_lesson" / "lesson.ipynb").read_bytes()
CLI = (sys.executable, "-m", "mnist37_client.cli")
# Python runs a module of this name when it starts. With None there, an import finds no module.
HIDE = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"


def lesson(folder: Path, *arguments: str, hidden: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run the command in a folder, without some packages; return its status, stdout and stderr."""
    modules = folder.parent / "modules"
    modules.mkdir(exist_ok=True)
    (modules / "sitecustomize.py").write_text(HIDE.format(names=hidden))
    process = subprocess.run(
        [*CLI, "lesson", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(modules)},
        timeout=60,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_the_notebook_is_copied_to_the_current_folder(here: Path) -> None:
    assert lesson(here, "--copy-only") == (0, "lesson.ipynb: copied\n", "")
    assert (here / "lesson.ipynb").read_bytes() == NOTEBOOK
    assert lesson(here, "--copy-only") == (0, "lesson.ipynb: already there\n", "")


def test_a_folder_of_the_users_choice_is_made(here: Path) -> None:
    assert lesson(here, "a/b", "--copy-only") == (0, "a/b/lesson.ipynb: copied\n", "")
    assert (here / "a" / "b" / "lesson.ipynb").read_bytes() == NOTEBOOK


def test_a_changed_copy_is_kept(here: Path) -> None:
    (here / "lesson.ipynb").write_text("mine")
    kept = "lesson.ipynb: kept with its changes; for a new one, give another FOLDER\n"
    assert lesson(here, "--copy-only") == (0, kept, "")
    assert (here / "lesson.ipynb").read_text() == "mine"


@pytest.mark.parametrize("hidden", [("jupyterlab",), ("torch", "starlette")])
def test_what_is_missing_is_named_after_the_copy(here: Path, hidden: tuple[str, ...]) -> None:
    status, out, error = lesson(here, hidden=("ipykernel", "jupyterlab", "matplotlib", *hidden))
    assert (status, out) == (1, "lesson.ipynb: copied\n")
    assert error.endswith("): pip install 'mnist37[lesson,server]'\n")
    assert error.startswith("mnist37: the lesson needs more than this (jupyterlab, ")
    assert error.count("\n") == 1
    assert all(name in error for name in hidden)
    assert (here / "lesson.ipynb").read_bytes() == NOTEBOOK


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("file", "file: is a file; give a folder, or none"),
        ("file/folder", "file/folder: cannot be made: Not a directory"),
        ("odd", "odd/lesson.ipynb: cannot be read: Is a directory"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(here: Path, folder: str, message: str) -> None:
    (here / "file").touch()
    (here / "odd" / "lesson.ipynb").mkdir(parents=True)
    assert lesson(here, folder, "--copy-only") == (2, "", f"mnist37: {message}\n")


def test_the_line_that_starts_jupyter_is_printed_and_takes_options(here: Path) -> None:
    modules = here.parent / "modules"
    for name in NEEDED:
        (modules / name).mkdir(parents=True)
        (modules / name / "__init__.py").touch()
    (modules / "jupyterlab" / "__main__.py").write_text("import sys\nprint(sys.argv[1:])\n")
    status, out, error = lesson(here, "my own")
    assert (status, error) == (0, "")
    copied, started, arguments = out.splitlines()
    assert (copied, arguments) == ("my own/lesson.ipynb: copied", "['my own/lesson.ipynb']")
    line = shlex.split(started.removeprefix("starting Jupyter: "))
    again = subprocess.run(
        [*line, "--allow-root"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(modules)},
        check=True,
    )
    assert again.stdout == "['my own/lesson.ipynb', '--allow-root']\n"


def test_an_empty_folder_is_refused(here: Path) -> None:
    status, out, error = lesson(here, "")
    assert (status, out) == (2, "")
    assert error.splitlines()[-1] == "mnist37: lesson: got an empty value; give another or none"


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs Linux")
def test_a_copy_that_is_not_whole_is_not_left_behind(here: Path) -> None:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    full = ["prlimit", "--fsize=1000", *CLI, "lesson", "--copy-only"]
    finished = subprocess.run(
        full, cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr == "mnist37: lesson.ipynb: cannot be written: File too large\n"
    assert not list(here.iterdir())
