"""The messages of WatchRun: a run's state, its curve, and its further epochs as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.services.messages.responses import progress_messages, run_message

if TYPE_CHECKING:  # a follower has no runs, and does not load SQLite
    from mnist37_server.engine.run_watch import RunWatch


def watch_run(watch: RunWatch, request: pb.WatchRunRequest) -> Iterator[pb.WatchRunResponse]:
    """Yield the state of a run, its curve and, if asked for, its further epochs and last state."""
    current = watch.record()
    if current is not None:
        yield pb.WatchRunResponse(run=run_message(*current))
    for progress in progress_messages([watch.curve()], request.coalesce):
        yield pb.WatchRunResponse(progress=progress)
    if request.follow:
        for progress in progress_messages(watch.follow(), request.coalesce):
            yield pb.WatchRunResponse(progress=progress)
        final = watch.record()
        if final is not None:
            yield pb.WatchRunResponse(run=run_message(*final))
