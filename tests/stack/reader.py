"""A reader of the live model, for kills.py: it reads without pause until its standard input ends.

It runs in a container of the stack, so it needs the client alone. It prints a report as a line of
JSON each half second: the reads that were answered and that failed, the answers whose version was
lower than one before, the slowest answer, and the latest answers by version.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from mnist37_client import Client, Mnist37Error, validation_images

REPORT_SECONDS = 0.5
ANSWERS = 300  # the latest, one a version


def main(address: str, replicas: str = "") -> None:
    """Read until the standard input ends."""
    must_end = threading.Event()
    threading.Thread(target=await_end, args=(must_end,), daemon=True).start()
    image = validation_images()[0][0]
    reads, newest, slowest = 0, -1, 0.0
    failed: list[str] = []
    backwards: list[list[int]] = []
    answers: dict[int, float] = {}
    report_at = time.monotonic()
    with Client(address, replicas=replicas or None) as client:
        while not must_end.is_set():
            start = time.monotonic()
            try:
                prediction = client.predict(image)
            except Mnist37Error as error:
                failed.append(f"{type(error).__name__}: {error}")
                continue
            finally:
                now = time.monotonic()
                slowest = max(slowest, now - start)
                if now > report_at:
                    report_at = now + REPORT_SECONDS
                    report(reads, failed, backwards, slowest, answers)
            reads += 1
            if prediction.version < newest:
                backwards.append([newest, prediction.version])
            newest = max(newest, prediction.version)
            answers[prediction.version] = float(prediction.probabilities[0])
            if len(answers) > ANSWERS:
                del answers[min(answers)]
    report(reads, failed, backwards, slowest, answers)


def await_end(must_end: threading.Event) -> None:
    """Set an event when the standard input ends."""
    sys.stdin.read()
    must_end.set()


def report(
    reads: int,
    failed: list[str],
    backwards: list[list[int]],
    slowest: float,
    answers: dict[int, float],
) -> None:
    """Print what was read until now."""
    values = {"reads": reads, "failed": failed, "backwards": backwards, "slowest": slowest}
    print(json.dumps({**values, "answers": answers}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
