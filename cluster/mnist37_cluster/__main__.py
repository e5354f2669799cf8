"""Entry point of `python -m mnist37_cluster`."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files must not take the place of modules
    # Before anything imports grpc: Ray forks this process, and gRPC would wait for its threads.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    from mnist37_server.rpc import process

    process.prepare()
    from mnist37_cluster.command import start

    start()
