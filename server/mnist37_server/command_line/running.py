"""The process of a server: from its command line to its end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import click

from mnist37_server.command_line.command import main
from mnist37_server.config import Config
from mnist37_server.errors import CannotStart
from mnist37_server.rpc import process

# The texts of errors whose class alone does not say what they are.
NO_THREAD = "can't start new thread"
UNMAPPED_LIBRARY = "failed to map segment"


def serve(config: Config) -> None:
    """Serve until a signal ends the server."""
    from mnist37_server.training.compilation import announce

    announce()
    from mnist37_server import app  # imports the kernels; --help and a wrong option do not

    app.run(config)


def start(serve: Callable[[Config], None] = serve) -> None:
    """Run the command and end the process; print one line on stderr if the server cannot start.

    Args:
        serve: serves with the settings of the command line.
    """
    process.prepare()
    try:
        config = parse()
        if config is not None:
            serve(config)
    except CannotStart as error:
        fail(str(error), 2)  # click's exit status for an invalid option
    except Exception as error:
        if (what := refused_by_system(error)) is None:
            raise
        logging.shutdown()  # first what was logged
        fail(f"the system refuses what the server needs: {what}", 2)
    end(0)


def refused_by_system(error: Exception) -> str | None:
    """Return what the system refuses; None if the error is a fault of the server."""
    first_line = str(error).partition("\n")[0]
    if isinstance(error, OSError):
        return first_line
    if isinstance(error, MemoryError):
        return "no memory is left"
    if isinstance(error, RuntimeError) and NO_THREAD in first_line:
        return "it lets this user start no thread more"
    if isinstance(error, ImportError) and UNMAPPED_LIBRARY in first_line:
        return first_line
    return None


def parse() -> Config | None:
    """Return the settings of the command line, or None after --help; end the process otherwise.

    Raises:
        CannotStart: a setting is not valid.
    """
    try:
        config = main(prog_name="mnist37 serve", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokenPipeError:  # the reader of the help has gone
        end(1)
    except OSError as error:
        fail(f"the output cannot be written: {error.strerror}", 1)
    return config if isinstance(config, Config) else None


def fail(text: str, status: int) -> NoReturn:
    """Print why the server cannot start, if stderr takes it, and end the process."""
    with suppress(OSError):
        click.echo(f"mnist37 serve: {text}", err=True)
    end(status)


def end(status: int) -> NoReturn:
    """End the process at once, when all is committed and closed, and the log is written.

    Python would free gRPC and the compiler piece by piece, which would delay a restart of the
    server by a second. The system frees them at once. Nor does a stdout that fails matter then.
    """
    logging.shutdown()
    os._exit(status)
