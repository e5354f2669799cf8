"""Entry point of `mnist37` and of `python -m mnist37_client.cli`."""

from __future__ import annotations

import os
import signal
import sys

from mnist37_client import python_process


def main() -> None:
    """Run the command line; Ctrl-C ends it without a stack trace, also while it is imported."""
    try:
        if python_process.searches_current_folder():
            arguments = [*python_process.command("mnist37_client.cli"), *sys.argv[1:]]
            os.execve(sys.executable, arguments, python_process.environment())
        from mnist37_client.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end can be interrupted too


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    main()
