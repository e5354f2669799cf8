"""The entry point `mnist37`. It imports little: an interrupt of imports is a stack trace."""

from __future__ import annotations

import os
import signal
import sys

from mnist37_client.processes import python_process


def main() -> None:
    """Run the command line; Ctrl-C ends it without a stack trace, also while it is imported."""
    try:
        if python_process.searches_current_folder():
            arguments = [*python_process.command("mnist37_client.cli"), *sys.argv[1:]]
            os.execve(sys.executable, arguments, python_process.environment())
        from mnist37_client.cli.run import run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end can be interrupted too
