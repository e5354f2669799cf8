"""The command line `mnist37`.

Exit status:
    0: done.
    1: a fault of the server, an answer that is not valid, a cancelled call, or an output that
        cannot be written.
    2: a value or a file that is not valid.
    3: no answer: no server at the address, or it is shutting down, full or too slow; try again
        later.
    4: the state does not allow it: a request_id of another request, a run that cannot continue, a
        version that is not retained, a follower that got a write, a lost history.
    5: no access: the token is missing, unknown or insufficient, or the client does not trust the
        server's certificate.
    130: Ctrl-C.
    141: the reader of stdout has gone.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from mnist37_client.cli import refusals, streams
from mnist37_client.cli.commands import (
    cluster,
    followers,
    front,
    lesson,
    model,
    predict,
    server,
    tags,
    training,
    web,
)
from mnist37_client.cli.group import commands

READER_GONE = 128 + 13  # as a shell reports a program that SIGPIPE has ended
# The import of these modules adds their commands to the group.
COMMANDS = (cluster, followers, front, lesson, model, predict, server, tags, training, web)


def run() -> None:
    """Run a command; print an error as one line on stderr and exit with the status of its kind."""
    streams.prepare()
    try:
        commands(prog_name="mnist37", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # `mnist37 ... | head` ends silently, and a demo stops its server
        streams.discard_output()
        sys.exit(READER_GONE)
    except Exception as error:
        from mnist37_client.errors import Mnist37Error, one_line

        if isinstance(error, Mnist37Error):
            _fail(str(error), _exit_status(error))
        if (text := refusals.explain(error)) is None:
            raise
        streams.discard_output()
        _fail(one_line(text), 1)


def _fail(text: str, status: int) -> NoReturn:
    """Print one line on stderr, if it takes one, and exit."""
    try:
        click.echo(f"mnist37: {text}", err=True)
    except OSError:
        streams.discard_errors()
    sys.exit(status)


def _exit_status(error: Exception) -> int:
    from mnist37_client import errors

    if isinstance(error, errors.InvalidInput):
        return 2
    if isinstance(error, errors.Unavailable | errors.DeadlineExceeded | errors.Exhausted):
        return 3
    if isinstance(error, errors.AlreadyExists | errors.Aborted | errors.NotFound):
        return 4
    if isinstance(error, errors.FailedPrecondition):
        return 4
    if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
        return 5
    return 1
