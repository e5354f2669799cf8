"""Entry point of `python -m mnist37_web`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    from mnist37_web.command import start

    start()
