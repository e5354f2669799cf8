"""The entry point `mnist37`. It imports little: an interrupt of imports is a stack trace."""

from __future__ import annotations

import signal
import sys

from mnist37_client.errors import Mnist37Error
from mnist37_client.processes import python_process


def main() -> None:
    """Run the command line; Ctrl-C ends it without a stack trace, also while it is imported."""
    try:
        # The parent may have blocked them: nothing but SIGKILL would end a command then.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, python_process.STOP_SIGNALS)
        if python_process.searches_current_folder():
            arguments = [*python_process.command("mnist37_client.cli"), *sys.argv[1:]]
            python_process.execute(arguments)
        from mnist37_client.cli.run import run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except Mnist37Error as error:
        sys.exit(f"mnist37: {error}")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end can be interrupted too
