"""The server, on a disk whose syncs take 5 ms longer: python -m benchmarks.slow_disk [OPTION]..."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from mnist37_server import __main__
from mnist37_server.storage import store

SECONDS = 0.005


class SlowSync(sqlite3.Connection):
    """Waits before each commit, which is when SQLite syncs its log."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as sqlite3's
        if sql == "COMMIT":
            time.sleep(SECONDS)
        return super().execute(sql, *arguments)


if __name__ == "__main__":
    store.connection_class = SlowSync
    __main__.start()
