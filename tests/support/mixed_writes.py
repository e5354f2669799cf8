"""python mixed_writes.py FOLDER: writes of each kind, and a line with what each was told.

A line is the version that the write was answered with, or the reason of its refusal. At the end the
process kills itself, so what it leaves is what a crash leaves.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from mnist37_server.domain.commands import Import, Initialize, Request, Restore, Step
from mnist37_server.domain.train import Train
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
    ]
    for request, request_id in writes:
        try:
            result = list(model.submit(request, request_id))[-1]
            print(result.version, flush=True)
        except Refusal as error:
            print(error.reason.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
