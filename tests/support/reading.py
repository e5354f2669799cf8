"""Reads that go on in another thread while a test breaks something."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.both_clients import IMAGES, AnyClient


class Reader(threading.Thread):
    """A thread that reads as fast as it can; `versions` has the answers, `slowest` seconds."""

    def __init__(self, client: AnyClient) -> None:
        super().__init__()
        self._client = client
        self.is_over = False
        self.versions: list[int] = []
        self.slowest = 0.0
        self.errors: list[Exception] = []

    def run(self) -> None:
        while not self.is_over:
            began = time.perf_counter()
            try:
                self.versions.append(self._client.predict(IMAGES[0]).version)
            except Exception as error:  # noqa: BLE001 - the test names it
                self.errors.append(error)
            self.slowest = max(self.slowest, time.perf_counter() - began)


@contextmanager
def reading(client: AnyClient) -> Iterator[Reader]:
    """Read in another thread; at the end assert that no read failed and that time went forwards."""
    client.predict(IMAGES[0])
    reader = Reader(client)
    reader.start()
    try:
        yield reader
    finally:
        reader.is_over = True
        reader.join()
    assert not reader.errors
    assert reader.versions == sorted(reader.versions)
    assert len(reader.versions) > 100
