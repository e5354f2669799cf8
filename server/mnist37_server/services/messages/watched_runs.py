"""The messages of WatchRun: a run's state, its curve, and its further epochs as they come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from mnist37_protos.v1 import mnist37_pb2 as pb

from mnist37_server.services.messages.responses import progress_messages, run_message

if TYPE_CHECKING:  # a follower has no runs, and does not load SQLite
    from mnist37_server.engine.run_watch import RunWatch


def watch_run(watch: RunWatch, request: pb.WatchRunRequest) -> Iterator[pb.WatchRunResponse]:
    """Yield the state of a run, its curve and, if asked for, its further epochs and last state.

    The state comes before the first epoch, although a run has none before its first commit.
    """
    state = watch.record()
    if state is not None:
        yield pb.WatchRunResponse(run=run_message(*state))
    groups = chain([watch.curve()], watch.follow() if request.follow else [])
    for progress in progress_messages(groups, request.coalesce):
        if state is None and (state := watch.record()) is not None:
            yield pb.WatchRunResponse(run=run_message(*state))
        yield pb.WatchRunResponse(progress=progress)
    if request.follow:
        final = watch.record()
        if final is not None:
            yield pb.WatchRunResponse(run=run_message(*final))
