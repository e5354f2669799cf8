"""Tests of the stream that never blocks its writers."""

from __future__ import annotations

import io
import threading
import time

from mnist37_server.observability.background_stream import LINES_MAX, BackgroundStream


class Hanging(io.StringIO):
    """A stream whose writes wait until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait()
        return super().write(text)


def test_all_that_is_written_arrives_in_order() -> None:
    target = io.StringIO()
    stream = BackgroundStream(target)
    for number in range(1000):
        stream.write(f"{number}\n")
    stream.drain(5)
    assert target.getvalue().split() == [str(number) for number in range(1000)]


def test_a_stream_that_hangs_blocks_no_writer_and_what_is_lost_is_counted() -> None:
    target = Hanging()
    stream = BackgroundStream(target)
    start = time.monotonic()
    for _ in range(LINES_MAX + 500):
        stream.write("line\n")
    stream.drain(0.1)
    assert time.monotonic() - start < 5
    target.go.set()
    stream.write("last\n")
    stream.drain(10)
    lines = target.getvalue().splitlines()
    lost = [
        line
        for line in lines
        if line.endswith("lines of the log were lost: its reader is too slow")
    ]
    assert sum(int(line.split()[0]) for line in lost) in {499, 500, 501}
    assert lines.count("line") + sum(int(line.split()[0]) for line in lost) in {
        LINES_MAX + 500,
        LINES_MAX + 501,
    }


def test_a_stream_that_is_closed_ends_nothing() -> None:
    target = io.StringIO()
    target.close()
    stream = BackgroundStream(target)
    stream.write("line\n")
    stream.drain(5)
    stream.write("another\n")
    stream.drain(5)
