"""python mutant.py WHAT OPTIONS: a follower that breaks a promise, which the check must notice."""

from __future__ import annotations

import random
import sys
from typing import Any
from unittest.mock import patch

from mnist37_server.command_line.running import start
from mnist37_server.domain.position import Lineage
from mnist37_server.engine.snapshot_feed import SnapshotFeed
from mnist37_server.follower.followed_model import FollowedModel
from mnist37_server.follower.replica import Held, Replica, Update, Versions


def ignore_floors() -> None:
    """Answer reads whose floor is not reached."""
    at = FollowedModel.at

    def at_any(model: FollowedModel, version: Any = None, floor: Any = None) -> Any:  # noqa: ARG001
        return at(model, version)

    patch.object(FollowedModel, "at", at_any).start()


def keep_old_snapshot() -> None:
    """Answer from the version that is held when the owner has another history."""
    receive = Replica.receive

    def receive_starts(replica: Replica, update: Update, received_at: float) -> None:
        position = replica.position
        if update.starts and position is not None:
            lineage = Lineage(update.starts)
            if not lineage.contains(position, update.position.version):
                assert replica.feed is not None
                replica._begin(Held(replica.feed.newest, lineage, received_at, True), Versions())
                return
        receive(replica, update, received_at)

    patch.object(Replica, "receive", receive_starts).start()


def keep_old_versions() -> None:
    """Keep the older versions that are held when the owner has another history."""
    # A reader of Follow that holds nothing, at start 0, still gets what the follower has.
    patch.object(Lineage, "contains", lambda _, position, __: position.start != 0).start()


def apply_older_versions() -> None:
    """Now and then, go back to the version before."""
    publish, versions = SnapshotFeed.publish, []

    def publish_any(feed: SnapshotFeed, snapshot: Any, lineage: Any = None) -> None:
        versions.append(snapshot)
        publish(feed, random.choice(versions[-3:]), lineage)

    patch.object(SnapshotFeed, "publish", publish_any).start()


MUTANTS = {
    "floor-ignored": ignore_floors,
    "old-snapshot-kept": keep_old_snapshot,
    "old-versions-kept": keep_old_versions,
    "older-version-applied": apply_older_versions,
}

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    start()
