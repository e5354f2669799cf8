"""Processes of Python that import no file of the current folder.

`python -m` searches the current folder first, and so does an empty entry of PYTHONPATH, as in
PYTHONPATH=:/more. A file there with the name of a module, such as token.py, would be run.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "PYTHONPATH"


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module as a program, for an `environment`."""
    return sys.executable, "-P", "-m", module


def environment() -> dict[str, str]:
    """Return the environment variables without the empty entries of PYTHONPATH."""
    variables = dict(os.environ)
    path = variables.pop(VARIABLE, "")
    if entries := [entry for entry in path.split(os.pathsep) if entry]:
        variables[VARIABLE] = os.pathsep.join(entries)
    return variables


def searches_current_folder() -> bool:
    """Return whether PYTHONPATH has an empty entry; Python ignores one that is empty as a whole."""
    path = os.environ.get(VARIABLE, "")
    return path != "" and "" in path.split(os.pathsep)
