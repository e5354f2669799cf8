"""A text stream that never blocks its writers, for logs whose reader may hang."""

from __future__ import annotations

import queue
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

LINES_MAX = 10_000  # that wait to be written; more are lost
ANNOUNCE_SECONDS = 1.0  # how long the start waits for the reader of stdout


class BackgroundStream:
    """A stream whose writes only queue the text; a thread writes it to another stream.

    A log's reader that hangs would otherwise block each thread that logs, with the locks that it
    holds. Text that no longer fits into the queue is dropped, and a line says how much.

    Args:
        stream: the stream that the text goes to.
        name: the name of the thread.
    """

    def __init__(self, stream: TextIO, name: str = "log") -> None:
        self._stream = stream
        self._texts: queue.Queue[str] = queue.Queue(LINES_MAX)
        self._lost = 0  # texts, since the last one that was written
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def write(self, text: str) -> None:
        """Queue a text."""
        try:
            self._texts.put_nowait(text)
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Do nothing: the thread flushes after each text."""

    def drain(self, timeout_seconds: float) -> None:
        """Wait until all queued texts are written, or until the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while self._texts.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _work(self) -> None:
        while True:
            text = self._texts.get()
            lost, self._lost = self._lost, 0
            if lost:
                text = f"{lost} lines of the log were lost: its reader is too slow\n{text}"
            with suppress(OSError, ValueError):  # the reader is gone, or the stream is closed
                self._stream.write(text)
                self._stream.flush()
            self._texts.task_done()


def announce(*lines: str) -> None:
    """Print lines on stdout, in a thread: serving does not depend on who reads them.

    The reader may have gone or hang, and the disk may be full.
    """
    output = BackgroundStream(sys.stdout, "announce")
    output.write("".join(f"{line}\n" for line in lines))
    output.drain(ANNOUNCE_SECONDS)
