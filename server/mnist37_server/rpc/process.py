"""Preparation of the server's process: the streams that it inherits, and the signals that end it.

Only the standard library is imported here, and little of it: this is the first code that runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import cache
from queue import SimpleQueue

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SERVING_ENDED = 0  # among the numbers of signals, where 0 is none


@cache
def prepare() -> StopSignals:
    """Make the standard streams usable and return the signals, which end the process from now on.

    Further calls return the same object.
    """
    open_missing_streams()
    return StopSignals()


def open_missing_streams() -> None:
    """Open /dev/null for each standard stream that is closed; let stdout write any text.

    Otherwise the next file or connection would get the stream's number, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdout", "stderr"), 1):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper


class StopSignals:
    """The signals that end the server; a thread receives them.

    A Python handler is not reliable: it runs in the main thread, which may be in a call that does
    not return, and if two signals arrive at once, the system may deliver both to other threads. So
    Python's C handler writes each number to a pipe, and the thread reads the pipe.

    Until `begin_serving`, nothing that a signal could damage is under way: the first one ends the
    process at once, with the exit status 128 + its number. After that the first one is for
    `wait`, the second one sets `hurry`, and the third one ends the process at once.

    SIGHUP is left alone where it is ignored: nohup wants the server to go on.

    Attributes:
        hurry: set by the second signal: calls under way get no more time.
    """

    def __init__(self) -> None:
        self.hurry = threading.Event()
        self._is_serving = False
        self._first: SimpleQueue[int] = SimpleQueue()
        read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        threading.Thread(target=self._receive, args=(read_fd,), name="signals", daemon=True).start()
        # `mnist37 serve` blocks them until here: Python would print a stack trace for SIGINT.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def begin_serving(self) -> None:
        """Let `wait` return the next signal, instead of ending the process by it."""
        self._is_serving = True

    def wait(self) -> int:
        """Return the number of the first signal, or SERVING_ENDED."""
        return self._first.get()

    @property
    def has_come(self) -> bool:
        """Return whether a signal has come for which `wait` was not called."""
        return not self._first.empty()

    def report_end(self, serving: threading.Thread) -> None:
        """Have `wait` return SERVING_ENDED when grpcio's serving thread has ended."""
        serving.join()
        self._first.put(SERVING_ENDED)

    def _receive(self, read_fd: int) -> None:
        count = 0
        while True:
            number = os.read(read_fd, 1)[0]
            count += self._is_serving
            if count == 1:
                self._first.put(number)
            elif count == 2:
                self.hurry.set()
            else:
                os._exit(128 + number)
