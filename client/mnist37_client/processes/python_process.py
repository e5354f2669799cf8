"""Processes of Python that import no file of the current folder.

`python -m` searches the current folder first, and so does an empty entry of PYTHONPATH, as in
PYTHONPATH=:/more. A file there with the name of a module, such as token.py, would be run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from mnist37_client.errors import Mnist37Error

VARIABLE = "PYTHONPATH"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module as a program, for an `environment`."""
    return sys.executable, "-P", "-m", module


def become(module: str, *arguments: str) -> NoReturn:
    """Run a module in the place of this process; signals wait until the module unblocks them.

    Before that, Python would print a stack trace for SIGINT.

    Raises:
        Mnist37Error: the system does not run Python.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    execute([*command(module), *arguments])


def execute(arguments: list[str]) -> NoReturn:
    """Run a command of Python in the place of this process.

    Raises:
        Mnist37Error: the system does not run it.
    """
    try:
        os.execve(sys.executable, arguments, environment())
    except OSError as error:  # another user's Python, or more arguments than the system takes
        raise Mnist37Error(f"{sys.executable} cannot be run: {error.strerror}") from error


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


def die_with_parent() -> Callable[[], None] | None:
    """Return what a child does first, so that it ends with its parent; None where it cannot."""
    if sys.platform != "linux":
        return None
    import ctypes  # not each command needs it

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended meanwhile
            os._exit(1)

    return prepare
