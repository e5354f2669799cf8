"""The settings that the commands of servers make of their options."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

# A command prepares its process for a server: the log, stderr, the collector. So it gets its own.
PARSE = """
import importlib, pickle, sys
command = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
sys.stdout.buffer.write(pickle.dumps(command(sys.argv[3:], standalone_mode=False)))
"""


def parse(
    command: click.Command, options: Sequence[str], environment: Mapping[str, str] | None = None
) -> Any:
    """Return the settings of a server.

    Args:
        command: starts it.
        options: of the command.
        environment: further variables.

    Raises:
        CalledProcessError: the command refuses them; stderr says why.
    """
    callback: Any = command.callback
    python = [sys.executable, "-c", PARSE, callback.__module__, callback.__name__, *options]
    process = subprocess.run(
        python,
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        timeout=60,
    )
    return pickle.loads(process.stdout)
