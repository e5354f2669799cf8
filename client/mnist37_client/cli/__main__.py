"""Entry point of `python -m mnist37_client.cli`, which does the same as `mnist37`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    from mnist37_client.cli.main import main

    main()
