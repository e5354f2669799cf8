"""The opening of a stored model: its first version, if the state is new, and the new start."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace

from mnist37_server.domain.commands.commands import Initialize
from mnist37_server.domain.position import Lineage
from mnist37_server.domain.snapshot import Origin
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.errors import CannotStart, Exhausted, Refusal, StorageBusy
from mnist37_server.storage.store import Store
from mnist37_server.training.trainer import Trainer

log = logging.getLogger(__name__)

START_MAX = 2**63 - 1  # the largest integer that SQLite stores


def open_model(store: Store, trainer: Trainer) -> SnapshotFeed:
    """Commit a new start; return the feed of the newest version, from which the trainer goes on.

    Args:
        store: has the model, or nothing yet.
        trainer: draws the first version of a new state.

    Raises:
        CannotStart: the state cannot be written.
    """
    snapshot = store.latest()
    try:
        if snapshot is None:
            trainer.initialize(Initialize())
            snapshot = replace(trainer.snapshot(Origin.INITIALIZE), version=0)
            store.commit([snapshot], [])
        starts = store.begin_start(secrets.randbelow(START_MAX) + 1)
        _commit_start(store)
    except Refusal as error:
        raise CannotStart(f"--state: {error}") from error
    trainer.reset(snapshot)
    return SnapshotFeed(snapshot, Lineage(starts))


def _commit_start(store: Store) -> None:
    """Commit the new start or, on a full disk, leave it to the next commit: reads need no disk."""
    try:
        store.commit_start()
    except (Exhausted, StorageBusy) as error:
        log.warning("the id of this start is stored with the next commit: %s", error)
