"""Entry point of `python -m mnist37_server`: prepares the process, then runs the command line."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    try:
        from mnist37_server.rpc import process

        process.prepare()
    except KeyboardInterrupt:  # the signals are not handled yet
        sys.exit(130)
    from mnist37_server.command_line import start

    start()
