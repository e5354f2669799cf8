"""python mixed_writes.py FOLDER: writes of each kind, and a line with what each was told.

A line is the version that the write was answered with, or the reason of its refusal. The line of a
change of a tag is NAME=VERSION, or NAME= if it was deleted. At the end the process kills itself, so
what it leaves is what a crash leaves.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from mnist37_server.domain.commands.commands import (
    DeleteTag,
    Import,
    Initialize,
    Request,
    Restore,
    Step,
    TagVersion,
)
from mnist37_server.domain.commands.train import Train
from mnist37_server.domain.results import Result
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.errors import Refusal
from mnist37_server.storage.store import Store

from mnist37.data import load
from mnist37.host import Host
from mnist37.training import Datasets


def main(folder: Path) -> None:
    model = LiveModel(Datasets(load(), Host()), Host(), Store(folder))
    weights = np.zeros(784, "<f4").tobytes()
    writes: list[tuple[Request, str | None]] = [
        (Step(), None),
        (Step(), "a"),
        (Step(), "a"),
        (Train(epochs=1), "b"),
        (Initialize(seed=1), "c"),
        (Restore(version=0), None),
        (Import(weights, 0.0), "d"),
        (Step(), "e"),
        (TagVersion("kept"), "f"),
        (TagVersion("gone", 0), "g"),
        (DeleteTag("gone"), None),
        (TagVersion("kept", 0), None),
    ]
    for request, request_id in writes:
        try:
            result = list(model.submit(request, request_id))[-1]
            print(describe(request, result), flush=True)
        except Refusal as error:
            print(error.reason.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def describe(request: Request, result: Result) -> str:
    """Return what the caller of a write was told, as a line without spaces."""
    if isinstance(request, TagVersion):
        return f"{request.name}={result.version}"
    return f"{request.name}=" if isinstance(request, DeleteTag) else f"{result.version}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
