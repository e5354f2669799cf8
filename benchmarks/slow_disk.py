"""A server on a disk whose syncs take 5 ms longer.

    python -m benchmarks.slow_disk [OPTION]...

The options are those of `mnist37 serve`.
"""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from typing import Any

from mnist37_server import command_line
from mnist37_server.config import Config

SYNC_DELAY_SECONDS = 0.005


class SlowSync(sqlite3.Connection):
    """A connection that waits before each commit, because SQLite syncs its log at a commit."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as sqlite3's
        if sql == "COMMIT":
            time.sleep(SYNC_DELAY_SECONDS)
        return super().execute(sql, *arguments)


def serve(config: Config) -> None:
    """Run the server until it is stopped, with a store whose syncs are slow."""
    from mnist37_server import app  # loads the kernels; a wrong option is reported without them
    from mnist37_server.storage.store import Store

    app.run(config, partial(Store, connection_class=SlowSync))


if __name__ == "__main__":
    command_line.start(serve)
