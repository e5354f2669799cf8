"""Entry point of `python -m mnist37_front`; with `serve` first, it starts the owner too."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    from mnist37_server.rpc import process

    process.prepare()
    from mnist37_front.command import front, start
    from mnist37_front.serve_command import serve

    if sys.argv[1:2] == ["serve"]:
        del sys.argv[1]
        start(serve, "mnist37 serve --front")
    start(front, "mnist37 front")
