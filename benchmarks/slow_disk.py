"""The server, on a disk whose syncs take 5 ms longer: python -m benchmarks.slow_disk [OPTION]..."""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from typing import Any

from mnist37_server import __main__
from mnist37_server.config import Config

SECONDS = 0.005


class SlowSync(sqlite3.Connection):
    """Waits before each commit, which is when SQLite syncs its log."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as sqlite3's
        if sql == "COMMIT":
            time.sleep(SECONDS)
        return super().execute(sql, *arguments)


def serve(config: Config) -> None:
    """As mnist37_server.app.run."""
    from mnist37_server import app  # loads the kernels, which a wrong option does without
    from mnist37_server.storage.store import Store

    app.run(config, partial(Store, connection_class=SlowSync))


if __name__ == "__main__":
    __main__.start(serve)
